/* tensor_map.cuh — host side: describes a matrix to the tensor copies of ptx_sm90.cuh.
 *
 * A kernel takes the map as `const __grid_constant__ CUtensorMap map` and passes &map on.  Under the executor the map is a
 * plain structure with the same rules, so that a wrong one is refused here and not on the first machine with a GPU.
 */
#ifndef FB_TENSOR_MAP_CUH
#define FB_TENSOR_MAP_CUH

#include "ptx.cuh"

namespace ptx {

/* A row-major matrix of rows x columns elements of 1, 2 or 4 bytes, row_bytes apart (a multiple of 16), copied in boxes of
 * box_rows x box_columns; a box row has at most swizzle_bytes if swizzled (0: not). Elements outside read as zero.
 * Returns nullptr, or what is wrong. Asks the driver; no GPU work. */
#ifdef FB_SIMT
static inline const char *encode_tensor_map(CUtensorMap *map, const void *base, unsigned element_bytes, uint64_t columns,
                                            uint64_t rows, uint64_t row_bytes, uint32_t box_columns, uint32_t box_rows,
                                            unsigned swizzle_bytes) {
    return simt::encode_tensor_map(map, base, element_bytes, columns, rows, row_bytes, box_columns, box_rows, swizzle_bytes);
}
#else
/* Through the runtime's entry-point query, so that the library does not link libcuda and still loads where there is none. */
static inline const char *encode_tensor_map(CUtensorMap *map, const void *base, unsigned element_bytes, uint64_t columns,
                                            uint64_t rows, uint64_t row_bytes, uint32_t box_columns, uint32_t box_rows,
                                            unsigned swizzle_bytes) {
    typedef CUresult (*Encode)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *,
                               const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle,
                               CUtensorMapL2promotion, CUtensorMapFloatOOBfill);
    void *entry = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &found) != cudaSuccess ||
        found != cudaDriverEntryPointSuccess)
        return "the driver has no tensor maps";
    const CUtensorMapDataType type = element_bytes == 1   ? CU_TENSOR_MAP_DATA_TYPE_UINT8
                                     : element_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_UINT16
                                                          : CU_TENSOR_MAP_DATA_TYPE_UINT32;
    const CUtensorMapSwizzle swizzle = swizzle_bytes == 32    ? CU_TENSOR_MAP_SWIZZLE_32B
                                       : swizzle_bytes == 64  ? CU_TENSOR_MAP_SWIZZLE_64B
                                       : swizzle_bytes == 128 ? CU_TENSOR_MAP_SWIZZLE_128B
                                                              : CU_TENSOR_MAP_SWIZZLE_NONE;
    const cuuint64_t size[2] = {columns, rows}, stride[1] = {row_bytes};
    const cuuint32_t box[2] = {box_columns, box_rows}, step[2] = {1, 1};
    if (element_bytes != 1 && element_bytes != 2 && element_bytes != 4) return "elements have 1, 2 or 4 bytes";
    if (((Encode)entry)(map, type, 2, const_cast<void *>(base), size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
                        CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS)
        return "cuTensorMapEncodeTiled refused the matrix, the box or the swizzle";
    return nullptr;
}
#endif

} // namespace ptx
#endif
