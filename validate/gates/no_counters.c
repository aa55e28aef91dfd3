/* no_counters.c: in place of counters.cpp in a program without the SIMT executor. */
#include "gates.h"

int gate_counters(FILE *to)
{
    (void)to;
    return -1;
}
