/* main.c: the command line of fourbit-report. */
#include "report.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DONE = 0, FAILED = 1, BAD_INPUT = 2 };

static const char usage[] =
    "fourbit-report [options] FOLDER\n"
    "Writes one HTML page of a results folder, with everything in it: no network, light and dark, printable.\n"
    "Of FOLDER it takes what is there, and the page says what is not:\n"
    "  bench.json      from `make bench`               error.csv       quantization error, from `make bench` or `make validate`\n"
    "  plots/*.svg     pictures of either              verdict.json    from `make compare FORMAT=--json=FOLDER/verdict.json`\n"
    "  resources.txt, counters.txt    registers, spills; executor counters: lines \"name key=value ...\" or columns under heads\n"
    "Options:\n"
    "  --out FILE      where the page goes (FOLDER/report.html); replaced whole or left alone\n"
    "  --verdict FILE  a verdict from elsewhere\n"
    "  --title TEXT    heading of the page\n"
    "  --help\n"
    "Exit status: 0; 1 the page could not be written; 2 usage, nothing to report on, or a damaged file.\n";

static int fail(int status, const char *name, const char *text)
{
    fprintf(stderr, "fourbit-report: %s%s%s\n", name, *name ? ": " : "", text);
    return status;
}

/* Whether a page may go there: a rename would put it in a device's place too (/dev/null, to root), or in an input's. */
static bool may_replace(const char *path, const char **why)
{
    static const char begins[] = "<!doctype html";
    char text[sizeof begins] = "";
    struct stat info;
    *why = NULL;
    if (stat(path, &info) != 0) return true;
    if (!S_ISREG(info.st_mode)) *why = S_ISDIR(info.st_mode) ? "is a folder; name a file for the page" : "is no regular file; name another for the page";
    else if (info.st_size > 0) {
        FILE *f = fopen(path, "rb");
        if (!f || fread(text, 1, sizeof text - 1, f) == 0 || strcasecmp(text, begins) != 0) *why = "is there and is no page; it is left alone, name another file";
        if (f) fclose(f);
    }
    return !*why;
}

/* Beside its place, then renamed: no reader ever finds half a page. */
static int put(const char *path, const char *text, size_t size)
{
    char temporary[4200];
    const char *why;
    if (!may_replace(path, &why)) return fail(FAILED, path, why);
    if (snprintf(temporary, sizeof temporary, "%s.%ld.tmp", path, (long)getpid()) >= (int)sizeof temporary) return fail(BAD_INPUT, "--out", "the path is too long");
    FILE *f = fopen(temporary, "wb");
    if (!f) return fail(FAILED, path, strerror(errno));
    bool ok = fwrite(text, 1, size, f) == size;
    ok = fclose(f) == 0 && ok && rename(temporary, path) == 0;
    if (ok) return DONE;
    int status = fail(FAILED, path, strerror(errno));
    remove(temporary);
    return status;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {{"out", required_argument, NULL, 'o'}, {"verdict", required_argument, NULL, 'v'},
                                            {"title", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
    const char *out = NULL, *verdict = NULL, *title = NULL;
    for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        switch (c) {
        case 'o': out = optarg; break;
        case 'v': verdict = optarg; break;
        case 't': title = optarg; break;
        case 'h': return fputs(usage, stdout) == EOF;
        default: return fail(BAD_INPUT, "", "see --help");
        }
    }
    if (optind + 1 != argc) return fail(BAD_INPUT, "", optind < argc ? "one folder at a time (see --help)" : "no folder named (see --help)");
    char place[4200], why[WHY], *text = NULL;
    size_t size = 0;
    snprintf(place, sizeof place, "%s/report.html", argv[optind]);
    report r;
    int status = BAD_INPUT;
    if (!report_load(&r, argv[optind], verdict, why)) fail(status, "", why);
    else {
        FILE *page = open_memstream(&text, &size);
        if (page) page_write(&r, title, page);
        if (!page || fclose(page) != 0) status = fail(FAILED, "", "no memory for the page");
        else status = put(out ? out : place, text, size);
    }
    if (status == DONE) printf("report: %s (%zu KB)\n", out ? out : place, (size + 1023) / 1024);
    free(text);
    report_free(&r);
    return status;
}
