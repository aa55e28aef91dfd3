/* replay.c: a fuzz target over every file of its corpus, without a fuzzer. A finding of
 * the fuzzer is added to the corpus and stays tested. Each file has a process of its
 * own, so that one that crashes is named and the others still run. Exit status 1 if a
 * file crashed, could not be read, or there is none. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

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

static int replay_apart(const char *path)
{
    int status = -1;
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) exit(replay(path)); /* exit, not _exit: leaks are looked for there */
    if (child > 0 && waitpid(child, &status, 0) == child && status == 0) return 0;
    printf("%s: failed (status %d)\n", path, status);
    return 1;
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
        bad += replay_apart(path);
        files++;
    }
    closedir(d);
    printf("%s: %d files, %d failed\n", folder, files, bad);
    return bad || files == 0;
}
