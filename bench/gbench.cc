// gbench.cc: the only C++ of the benchmarks (gbench.h says what it is for). Every extern "C" function is
// wrapped in guarded(): an exception that reached a C frame would end the program.
#include "bench/gbench.h"

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <sstream>
#include <string>

struct gb_state {
    benchmark::State &state;
    bool ended;  // KeepRunning has said false
    bool failed;
};

namespace {

char last_error[256];
int errors;

void set_error(const char *text) { std::snprintf(last_error, sizeof last_error, "%s", text); }

template <class Value, class Function> Value guarded(Value failed, Function function) noexcept
{
    try {
        return function();
    } catch (const std::exception &e) {
        set_error(e.what());
    } catch (...) {
        set_error("an exception that is no std::exception");
    }
    return failed;
}

void skip(gb_state *s, const char *reason)
{
    if (s->failed) return;
    s->failed = true;
    s->state.SkipWithError(reason);
    errors++;
}

// What Google Benchmark calls: the user's function between two nets.
void call(benchmark::State &state, gb_function function, void *user)
{
    gb_state s{state, false, false};
    try {
        function(&s, user);
    } catch (const std::exception &e) {
        skip(&s, (std::string("exception: ") + e.what()).c_str());
    } catch (...) {
        skip(&s, "exception that is no std::exception");
    }
    if (!s.ended && !s.failed) skip(&s, "the function returned before gb_keep_running said false");
}

benchmark::Counter::Flags counter_flags(unsigned flags)
{
    using benchmark::Counter;
    Counter::Flags f = Counter::kDefaults;
    if (flags & GB_RATE) f = f | Counter::kIsRate;
    if (flags & GB_INVERT) f = f | Counter::kInvert;
    if (flags & GB_AVG_ITERATIONS) f = f | Counter::kAvgIterations;
    if (flags & GB_ITERATIONS) f = f | Counter::kIsIterationInvariant;
    return f;
}

}  // namespace

extern "C" bool gb_register(const gb_benchmark *b)
{
    return guarded(false, [&] {
        if (!b || !b->name || !*b->name || !b->function) return set_error("gb_register: no name or no function"), false;
        if (b->iterations < 0 || b->repetitions < 0) return set_error("gb_register: a negative count"), false;
        if (b->manual_time && b->iterations == 0)
            return set_error("gb_register: manual time needs a fixed iteration count"), false;
        gb_function function = b->function;
        void *user = b->user;
        auto *made = benchmark::RegisterBenchmark(
            b->name, [function, user](benchmark::State &state) { call(state, function, user); });
        made->Unit(benchmark::kMicrosecond);
        if (b->iterations > 0) made->Iterations(b->iterations);
        if (b->manual_time) made->UseManualTime();
        if (b->repetitions > 0) made->Repetitions(b->repetitions);
        return true;
    });
}

extern "C" void gb_clear(void)
{
    guarded(false, [] { return benchmark::ClearRegisteredBenchmarks(), true; });
}

extern "C" bool gb_keep_running(gb_state *s)
{
    return guarded(false, [&] {
        if (s->failed || s->ended) return false;  // asking again would start the library's loop anew
        if (s->state.KeepRunning()) return true;
        s->ended = true;
        return false;
    });
}

extern "C" void gb_set_iteration_time(gb_state *s, double seconds)
{
    guarded(false, [&] { return s->state.SetIterationTime(seconds), true; });
}

extern "C" void gb_counter(gb_state *s, const char *name, double value, unsigned flags)
{
    guarded(false, [&] { return s->state.counters[name] = benchmark::Counter(value, counter_flags(flags)), true; });
}

extern "C" void gb_label(gb_state *s, const char *text)
{
    guarded(false, [&] { return s->state.SetLabel(text), true; });
}

extern "C" void gb_skip_with_error(gb_state *s, const char *reason)
{
    guarded(false, [&] { return skip(s, reason && *reason ? reason : "no reason was given"), true; });
}

extern "C" bool gb_context(const char *key, const char *value)
{
    return guarded(false, [&] {
        if (!key || !*key || !value) return set_error("gb_context: no key or no value"), false;
        benchmark::AddCustomContext(key, value);
        return true;
    });
}

extern "C" char *gb_run_json(const char *filter)
{
    return guarded(static_cast<char *>(nullptr), [&]() -> char * {
        std::ostringstream json, complaints;
        benchmark::JSONReporter reporter;
        reporter.SetOutputStream(&json);
        reporter.SetErrorStream(&complaints);
        size_t ran = benchmark::RunSpecifiedBenchmarks(&reporter, filter && *filter ? filter : ".");
        if (ran == 0) {
            set_error(complaints.str().empty() ? "no benchmark matches" : complaints.str().c_str());
            return nullptr;
        }
        char *copy = strdup(json.str().c_str());
        if (!copy) set_error("out of memory for the report");
        return copy;
    });
}

extern "C" int gb_main(int argc, char **argv)
{
    return guarded(1, [&] {
        benchmark::Initialize(&argc, argv);
        if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
        int before = errors;
        size_t ran = benchmark::RunSpecifiedBenchmarks();
        benchmark::Shutdown();
        return ran > 0 && errors == before ? 0 : 1;
    });
}

extern "C" int gb_errors(void) { return errors; }
extern "C" const char *gb_last_error(void) { return last_error; }
