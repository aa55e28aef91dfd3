/* html.c: text, numbers and bars as HTML (report.h). */
#include "report.h"

#include <math.h>

/* Bytes of the UTF-8 character at s, or 0 if it is none (overlong, surrogate, cut short). */
static int character(const unsigned char *s)
{
    if (s[0] < 0x80) return 1;
    int n = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4) return 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) return 0;
    return n;
}

void html_text(FILE *to, const char *text)
{
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        int n = character(s);
        switch (*s) {
        case '&': fputs("&amp;", to); break;
        case '<': fputs("&lt;", to); break;
        case '>': fputs("&gt;", to); break;
        case '"': fputs("&quot;", to); break;
        case '\'': fputs("&#39;", to); break;
        default:
            if (n == 0 || (*s < ' ' && *s != '\n' && *s != '\t') || *s == 0x7f) fputs("\xef\xbf\xbd", to);
            else fwrite(s, 1, (size_t)n, to);
        }
        s += n ? n : 1;
    }
}

void html_number(FILE *to, double value, int digits)
{
    if (fabs(value) < 0.5 * pow(10, -digits)) value = 0; /* no "-0.00" */
    if (isfinite(value)) fprintf(to, "<td class=\"n\">%.*f</td>", digits, value);
    else fputs("<td class=\"n\">\xe2\x80\x93</td>", to);
}

void html_bar(FILE *to, double share, const char *unit)
{
    if (!isfinite(share)) {
        fputs("<td class=\"n\">\xe2\x80\x93</td>", to);
        return;
    }
    double width = share < 0 ? 0 : share > 1 ? 100 : 100 * share;
    fprintf(to, "<td class=\"n bar\" style=\"--w:%.1f%%\">%.*f", width, share < 0.0995 ? 1 : 0, 100 * share);
    if (*unit) fprintf(to, "<small>%s</small>", unit);
    fputs("</td>", to);
}
