/* svg.c: an SVG file as a part of an HTML page (report.h).
 *
 * Ids of several pictures must not meet, and a picture that someone else's results folder brings must not run anything
 * in the reader's browser. So it is read tag by tag, and what is not known to be harmless is refused. */
#include "report.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH = 64, WORD = 64 };

static const char *const elements[] = {
    "svg",  "g",    "defs", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text",
    "tspan", "use", "symbol", "filter", "feFlood", "feComposite", "linearGradient", "radialGradient", "stop", "clipPath", "mask", "pattern"};

typedef struct reader {
    const char *at, *end, *prefix;
    FILE *to;
    char open[DEPTH][WORD];
    int depth;
    char *why;
} reader;

static bool refuse(reader *r, const char *format, ...) __attribute__((format(printf, 2, 3)));
static bool refuse(reader *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->why, WHY, format, args);
    va_end(args);
    return false;
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == ':' || c == '.';
}
static bool begins(const reader *r, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(r->end - r->at) >= n && memcmp(r->at, text, n) == 0;
}
static void skip_space(reader *r)
{
    while (r->at < r->end && is_space(*r->at)) r->at++;
}

static bool word(reader *r, char name[WORD])
{
    int n = 0;
    while (r->at < r->end && is_name(*r->at) && n < WORD - 1) name[n++] = *r->at++;
    name[n] = '\0';
    return n > 0 || refuse(r, "a tag or attribute without a name");
}

/* To after the mark; what lies before it is dropped. */
static bool drop_to(reader *r, const char *mark)
{
    const char *found = memmem(r->at, (size_t)(r->end - r->at), mark, strlen(mark));
    if (!found) return refuse(r, "it ends before a \"%s\"", mark);
    r->at = found + strlen(mark);
    return true;
}

static bool one_of(const char *name, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(name, list[i]) == 0) return true;
    return false;
}

/* Text as it stands. Its entities must be plain ones: they are the page's afterwards. */
static bool characters(reader *r, const char *from, const char *to)
{
    for (const char *s = from; s < to; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '<' || (c < ' ' && !is_space(*s))) return refuse(r, "a stray byte 0x%02x", c);
        if (c != '&') continue;
        const char *e = s + 1;
        while (e < to && (is_name(*e) || *e == '#')) e++;
        if (e == s + 1 || e == to || *e != ';') return refuse(r, "an & that begins no entity");
    }
    fwrite(from, 1, (size_t)(to - from), r->to);
    return true;
}

/* url(#id) and href="#id": within this picture only. */
static bool value(reader *r, const char *name, const char *from, const char *to)
{
    size_t n = (size_t)(to - from);
    if (strcmp(name, "id") == 0) {
        fprintf(r->to, "%s", r->prefix);
        return characters(r, from, to);
    }
    if (strcmp(name, "href") == 0) {
        if (n < 2 || *from != '#') return refuse(r, "a link to outside the picture");
        fprintf(r->to, "#%s", r->prefix);
        return characters(r, from + 1, to);
    }
    const char *url = memmem(from, n, "url(", 4);
    if (url) {
        if (to - url < 6 || url[4] != '#') return refuse(r, "a url() outside the picture");
        if (!characters(r, from, url)) return false;
        fprintf(r->to, "url(#%s", r->prefix);
        return !memmem(url + 5, (size_t)(to - url - 5), "url(", 4) ? characters(r, url + 5, to) : refuse(r, "two url() in an attribute");
    }
    if (memchr(from, ':', n) && strcmp(name, "style") != 0) return refuse(r, "attribute %s has a ':'", name);
    /* a backslash or an at-sign could spell url() in CSS another way */
    if (strcmp(name, "style") == 0 && (memchr(from, '\\', n) || memchr(from, '@', n) || memchr(from, '&', n) || memmem(from, n, "expression", 10)))
        return refuse(r, "a style that is not plain");
    return characters(r, from, to);
}

static bool attribute(reader *r, bool root)
{
    char name[WORD];
    if (!word(r, name)) return false;
    skip_space(r);
    if (r->at == r->end || *r->at != '=') return refuse(r, "attribute %s has no value", name);
    r->at++, skip_space(r);
    if (r->at == r->end || (*r->at != '"' && *r->at != '\'')) return refuse(r, "attribute %s is not quoted", name);
    char quote = *r->at++;
    const char *from = r->at, *to = memchr(from, quote, (size_t)(r->end - from));
    if (!to) return refuse(r, "attribute %s does not end", name);
    r->at = to + 1;
    /* the page is HTML: no namespaces; the size is the style sheet's */
    if (strncmp(name, "xmlns", 5) == 0 || (root && (strcmp(name, "width") == 0 || strcmp(name, "height") == 0 || strcmp(name, "version") == 0))) return true;
    if (strcmp(name, "xlink:href") == 0) strcpy(name, "href");
    if (strncasecmp(name, "on", 2) == 0) return refuse(r, "attribute %s, a script", name);
    fprintf(r->to, " %s=%c", name, quote);
    bool ok = value(r, name, from, to);
    fputc(quote, r->to);
    return ok;
}

static bool open_tag(reader *r)
{
    char name[WORD];
    r->at++;
    if (!word(r, name)) return false;
    /* gnuplot's say "Gnuplot" and "gnuplot_plot_3": a browser shows them under the pointer */
    if (r->depth && strcmp(name, "title") == 0) return drop_to(r, "</title>");
    if (r->depth && strcmp(name, "desc") == 0) return drop_to(r, "</desc>");
    if (!one_of(name, elements, sizeof elements / sizeof *elements)) return refuse(r, "element <%s> is none that a picture of plots/ has", name);
    bool root = r->depth == 0;
    if (root != (strcmp(name, "svg") == 0)) return refuse(r, "<%s> where <svg> should be, or the reverse", name);
    fprintf(r->to, "<%s", name);
    if (root) fputs(" role=\"img\"", r->to);
    for (;;) {
        skip_space(r);
        if (r->at == r->end) return refuse(r, "it ends within <%s>", name);
        if (*r->at == '>' || begins(r, "/>")) break;
        if (!attribute(r, root)) return false;
    }
    bool closed = *r->at == '/';
    r->at += closed ? 2 : 1;
    fputs(closed ? "/>" : ">", r->to);
    if (closed) return !root || refuse(r, "it is empty");
    if (r->depth == DEPTH) return refuse(r, "deeper than %d elements", DEPTH);
    strcpy(r->open[r->depth++], name);
    return true;
}

static bool close_tag(reader *r)
{
    char name[WORD];
    r->at += 2;
    if (!word(r, name)) return false;
    skip_space(r);
    if (r->at == r->end || *r->at != '>') return refuse(r, "</%s> does not end", name);
    r->at++;
    if (r->depth == 0 || strcmp(r->open[r->depth - 1], name) != 0) return refuse(r, "</%s> closes nothing", name);
    r->depth--;
    fprintf(r->to, "</%s>", name);
    return true;
}

static bool next(reader *r)
{
    if (begins(r, "<!--")) return drop_to(r, "-->");
    if (begins(r, "<?")) return drop_to(r, "?>");
    if (begins(r, "<!")) return drop_to(r, ">");
    if (begins(r, "</")) return close_tag(r);
    if (*r->at == '<') return open_tag(r);
    const char *from = r->at, *to = memchr(from, '<', (size_t)(r->end - from));
    r->at = to ? to : r->end;
    if (r->depth > 0) {
        /* gnuplot's indentation is a tenth of the file; its text has no line breaks */
        const char *s = from;
        while (s < r->at && is_space(*s)) s++;
        if (s == r->at) return fputc(memchr(from, '\n', (size_t)(s - from)) ? '\n' : ' ', r->to) != EOF;
        return characters(r, from, r->at);
    }
    for (; from < r->at; from++)
        if (!is_space(*from)) return refuse(r, "text outside <svg>");
    return true;
}

char *svg_inline(const char *svg, size_t bytes, const char *prefix, char why[WHY])
{
    char *text = NULL;
    size_t size = 0;
    reader r = {.at = svg, .end = svg + bytes, .prefix = prefix, .to = open_memstream(&text, &size), .why = why};
    if (!r.to) return snprintf(why, WHY, "no memory"), NULL;
    bool ok = true, seen = false;
    while (ok && r.at < r.end) {
        bool was = r.depth > 0;
        ok = next(&r);
        if (ok && was && r.depth == 0) {
            if (seen) ok = refuse(&r, "two <svg>");
            seen = true;
        }
    }
    if (ok && (r.depth || !seen)) ok = refuse(&r, r.depth ? "<%s> is not closed" : "no %s", r.depth ? r.open[r.depth - 1] : "<svg>");
    if (fclose(r.to) != 0 && ok) ok = refuse(&r, "no memory");
    if (ok) return text;
    free(text);
    return NULL;
}
