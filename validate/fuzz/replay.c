/* replay.c: a fuzz target over every file of its corpus, without a fuzzer. A finding of
 * the fuzzer is added to the corpus and stays tested. Exit status 1 where a file
 * cannot be read or there is none; a failed check in the target aborts. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int replay(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0) {
        perror(path);
        if (f) fclose(f);
        return 1;
    }
    size_t size = (size_t)ftell(f);
    rewind(f);
    uint8_t *data = malloc(size ? size : 1); /* exact: a sanitizer sees one byte too far */
    int bad = !data || fread(data, 1, size, f) != size;
    if (bad) perror(path);
    else LLVMFuzzerTestOneInput(data, size);
    free(data);
    fclose(f);
    return bad;
}

int main(int argc, char **argv)
{
    const char *folder = argc > 1 ? argv[1] : FUZZ_CORPUS;
    DIR *d = opendir(folder);
    int files = 0, bad = 0;
    if (!d) {
        perror(folder);
        return 1;
    }
    for (struct dirent *entry; (entry = readdir(d));) {
        char path[1024];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        fprintf(stderr, "\r\033[K%s", path); /* so that an abort says where */
        bad += replay(path);
        files++;
    }
    closedir(d);
    fprintf(stderr, "\r\033[K");
    printf("%s: %d files\n", folder, files);
    return bad || files == 0;
}
