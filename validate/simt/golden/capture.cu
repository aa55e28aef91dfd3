/* capture.cu — runs cases.cuh on a GPU and writes what came out, for test_simt_ptx_golden to compare with.
 *
 *     nvcc -std=c++17 -I. -Ikernels -gencode arch=compute_80,code=sm_80 -gencode arch=compute_90a,code=sm_90a \
 *          validate/simt/golden/capture.cu -o capture && ./capture validate/simt/golden
 *
 * The file is golden/sm_<number>.txt (the folder is made if there is none): a line for each case and round, the name, then the results in hexadecimal. */
#include "kernels/cuda/launch.cuh"

#include "kernels/cuda/ptx.cuh"

#include "cases.cuh"
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

static void must(cudaError_t e, const char *what) {
    if (e == cudaSuccess) return;
    fprintf(stderr, "capture: %s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

int main(int argc, char **argv) {
    cudaDeviceProp gpu;
    must(cudaGetDeviceProperties(&gpu, 0), "no GPU");
    int arch = gpu.major * 10 + gpu.minor;
    const std::string folder = argc > 1 ? argv[1] : ".";
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) return fprintf(stderr, "capture: the folder %s cannot be made: %s\n", folder.c_str(), error.message().c_str()), 1;
    std::string path = folder + "/sm_" + std::to_string(arch) + ".txt";
    FILE *f = fopen(path.c_str(), "w");
    if (!f) return perror(path.c_str()), 1;
    fprintf(f, "# %s\n", gpu.name);
    const size_t most = 128 * 64 * 4;
    uint32_t *in, *image, *out;
    must(cudaMalloc((void **)&in, most), "memory");
    must(cudaMalloc((void **)&image, most), "memory");
    must(cudaMalloc((void **)&out, most), "memory");
    for (const GoldenCase &c : golden_cases) {
        if (c.needs_sm90 && arch != 90) continue; /* wgmma exists on no other */
        for (int round = 0; round < kGoldenRounds; round++) {
            std::vector<uint32_t> a((size_t)(c.threads * c.words_in + 1)), b((size_t)c.operand_words + 1), d((size_t)(c.threads * c.words_out));
            golden_inputs(c, round, a.data(), b.data());
            must(cudaMemcpy(in, a.data(), a.size() * 4, cudaMemcpyHostToDevice), "copy");
            must(cudaMemcpy(image, b.data(), b.size() * 4, cudaMemcpyHostToDevice), "copy");
            if (c.threads == 32)
                k_golden_warp<<<1, 32>>>(c.kind, in, image, out);
            else
                k_golden_wgmma<<<1, 128>>>(c.kind, in, image, out);
            must(cudaDeviceSynchronize(), c.name);
            must(cudaMemcpy(d.data(), out, d.size() * 4, cudaMemcpyDeviceToHost), "copy");
            fprintf(f, "%s;%d;", c.name, round);
            for (uint32_t v : d) fprintf(f, "%08x", v);
            fputc('\n', f);
        }
    }
    if (fclose(f)) return perror(path.c_str()), 1;
    printf("wrote %s\n", path.c_str());
    return 0;
}
