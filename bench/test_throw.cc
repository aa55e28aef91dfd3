// test_throw.cc: what C cannot write itself: a benchmark that throws (test_bench.c).
#include "bench/gbench.h"

#include <stdexcept>

extern "C" void throw_error(gb_state *state, void *)
{
    while (gb_keep_running(state)) throw std::runtime_error("planted");
}
extern "C" void throw_number(gb_state *, void *) { throw 42; }
