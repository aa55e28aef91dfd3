/* main.c: the command line of fourbit-compare. */
#include "compare.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "fourbit-compare [options] BASE NEW\n"
    "Compares two results of fourbit-bench row by row. BASE and NEW are two bench.json, or two folders with the rounds of\n"
    "an interleaved run (01.json, 02.json ...; scripts/ab.sh makes them): then round i of one is paired with round i of the other.\n"
    "  --allow LIST        compare although these differ (comma-separated):\n"
    "                      machine gpu driver cuda clocks compiler threads  as the files' context says\n"
    "                      dirty    a commit with uncommitted changes\n"
    "                      label    a row measured another way (threads, instruction set)\n"
    "                      outputs  hashes of outputs and error metrics: the change is wanted\n"
    "                      missing  rows of BASE that NEW has not\n"
    "  --threshold PCT     a change of the median that matters (3 for rounds, 10 for two separate runs)\n"
    "  --alpha P           chance of any wrong SLOWER or faster in a whole comparison (0.05)\n"
    "  --turns             the samples of a round were taken in turn too (fourbit-bench --turns): they are paired one by one\n"
    "  --changes           table without the rows that are the same\n"
    "  --json[=FILE] --markdown[=FILE] --junit[=FILE] --tracking[=FILE]\n"
    "                      also write the result so; without FILE to standard output, in the table's place\n"
    "  --help\n"
    "A row is SLOWER (or faster) if its median ratio is beyond the threshold, the 95 % bootstrap interval of the ratio\n"
    "excludes 1 (two separate runs: lies beyond the threshold), and a rank test agrees after correction for the number of\n"
    "rows: signed-rank for rounds, rank-sum for two runs. It is the same if the interval lies within the threshold; else\n"
    "ambiguous: take more rounds. Hashes and error metrics must be equal. Rows of peers are controls: shown, not judged.\n"
    "Exit status: 0 pass, 1 regression (SLOWER, CHANGED, BROKEN), 2 cannot compare (also a damaged, unfinished or incomplete\n"
    "file, and wrong usage), 3 ambiguous.\n";

enum { FORMATS = 4 };
static const struct {
    const char *name;
    void (*write)(const comparison *, FILE *);
} formats[FORMATS] = {{"json", write_json}, {"markdown", write_markdown}, {"junit", write_junit}, {"tracking", write_tracking}};

typedef struct request {
    rules r;
    bool changes, wanted[FORMATS];
    const char *file[FORMATS]; /* NULL: standard output */
} request;

static int refuse(const char *text)
{
    fprintf(stderr, "fourbit-compare: %s\ncannot compare (exit status %d)\n", text, COMPARE_CANNOT);
    return COMPARE_CANNOT;
}

static bool is_input(const side *s, const struct stat *info)
{
    struct stat other;
    for (int i = 0; i < s->rounds; i++)
        if (stat(s->files[i].path, &other) == 0 && other.st_dev == info->st_dev && other.st_ino == info->st_ino) return true;
    return false;
}

/* To a temporary file, then renamed: a CI step that reads it never finds half of it. What is no regular file (a pipe,
 * /dev/null, which root's rename would replace) is written to as it is. */
static bool write_file(const char *path, void (*write)(const comparison *, FILE *), const comparison *c, char why[WHY])
{
    char temporary[4200];
    struct stat info;
    const bool there = stat(path, &info) == 0, rename_it = !there || S_ISREG(info.st_mode);
    if (there && (is_input(c->base, &info) || is_input(c->now, &info)))
        return snprintf(why, WHY, "%.400s is one of the results that are compared: it is not overwritten", path), false;
    const int length = snprintf(temporary, sizeof temporary, rename_it ? "%s.%ld.tmp" : "%s", path, (long)getpid());
    FILE *f = length < (int)sizeof temporary ? fopen(temporary, "w") : (errno = ENAMETOOLONG, NULL);
    bool ok = f != NULL;
    if (f) {
        write(c, f);
        ok = !ferror(f);
        ok = fclose(f) == 0 && ok && (!rename_it || rename(temporary, path) == 0);
    }
    if (!ok) snprintf(why, WHY, "%.400s could not be written: %s", path, strerror(errno));
    if (f && !ok && rename_it) remove(temporary);
    return ok;
}

static int write_all(const request *q, const comparison *c)
{
    bool table = true;
    char why[WHY];
    for (int i = 0; i < FORMATS; i++) {
        if (!q->wanted[i]) continue;
        if (!q->file[i]) {
            formats[i].write(c, stdout);
            table = false;
        } else if (!write_file(q->file[i], formats[i].write, c, why)) {
            return refuse(why);
        }
    }
    if (table) write_table(c, q->changes, stdout);
    if (fflush(stdout) != 0 || ferror(stdout)) return refuse("standard output could not be written");
    return c->exit_status;
}

static int run(const request *q, const char *base_path, const char *now_path)
{
    side base = {0}, now = {0};
    comparison c = {0};
    char why[WHY] = "";
    int status;
    if (side_load(&base, base_path, why) && side_load(&now, now_path, why) && compare(&base, &now, &q->r, &c, why))
        status = write_all(q, &c);
    else status = refuse(why);
    comparison_free(&c);
    side_free(&base);
    side_free(&now);
    return status;
}

static bool number(const char *text, double low, double high, double *value)
{
    char *rest;
    *value = strtod(text, &rest);
    return rest != text && *rest == '\0' && *value > low && *value < high;
}

static bool parse(request *q, int argc, char **argv, int *status)
{
    static const struct option options[] = {
        {"json", optional_argument, NULL, 0},        {"markdown", optional_argument, NULL, 1}, {"junit", optional_argument, NULL, 2},
        {"tracking", optional_argument, NULL, 3},    {"allow", required_argument, NULL, 'a'},  {"threshold", required_argument, NULL, 't'},
        {"alpha", required_argument, NULL, 'p'},     {"turns", no_argument, NULL, 'T'},          {"changes", no_argument, NULL, 'c'},      {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    char text[WHY];
    *status = COMPARE_CANNOT;
    for (int o; (o = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (o >= 0 && o < FORMATS) q->wanted[o] = true, q->file[o] = optarg;
        else if (o == 'c') q->changes = true;
        else if (o == 'T') q->r.turns = true;
        else if (o == 'h') return fputs(usage, stdout), *status = 0, false;
        else if (o == 'a' && !allow_parse(optarg, &q->r.allow)) {
            snprintf(text, sizeof text, "--allow %.100s: the words are %s", optarg, allow_words());
            return refuse(text), false;
        } else if (o == 't' && number(optarg, 0, 1000, &q->r.threshold)) q->r.threshold /= 100;
        else if (o == 't') return refuse("--threshold: per cent above 0 are expected"), false;
        else if (o == 'p' && !number(optarg, 0, 1, &q->r.alpha)) return refuse("--alpha: a probability between 0 and 1 is expected"), false;
        else if (o == '?') return refuse("wrong usage (see --help)"), false;
    }
    if (argc - optind == 2) return true;
    return refuse("two results are expected: BASE NEW (see --help)"), false;
}

int main(int argc, char **argv)
{
    request q = {.r.alpha = 0.05};
    int status;
    if (!parse(&q, argc, argv, &status)) return status;
    return run(&q, argv[optind], argv[optind + 1]);
}
