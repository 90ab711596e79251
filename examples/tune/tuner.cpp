// SPDX-License-Identifier: MIT
#include "tune/tuner.hpp"

#include <sofattn/dse/search.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <utility>
#include <vector>

namespace sofattn::tune {

clocks machine_clocks() {
    return {[] {
                std::timespec now{};
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
                return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
            },
            [] {
                return std::chrono::duration<double>(
                           std::chrono::steady_clock::now().time_since_epoch())
                    .count();
            }};
}

tuned tune(tunable const& what, tune_options const& options, clocks const& time) {
    dse::search_options how;
    how.seed = options.seed;
    how.suggested = {what.defaults};
    dse::search search(what.space, how);
    auto const against_defaults = [&](dse::point const& p, dse::interleaving const& pairs) {
        return dse::interleaved_ratio([&] { what.run(p); }, [&] { what.run(what.defaults); },
                                      time.processor, pairs);
    };
    tuned result;
    result.best = what.defaults;
    double const started = time.wall();
    for (;;) {
        double const share = std::max(static_cast<double>(result.evaluations) /
                                          static_cast<double>(options.evaluations),
                                      (time.wall() - started) / options.most_seconds);
        if (options.progress) {
            options.progress(std::min(share, 1.0));
        }
        if (share >= 1) {
            break;
        }
        auto const asked = search.ask();
        if (asked.empty()) {
            break;
        }
        auto const& [id, at, none_yet] = asked.front();
        dse::time_ratio const r = against_defaults(at, options.search);
        if (at == what.defaults) {
            result.noise = r;
        }
        search.tell(id, {dse::trial_status::done, {std::log(r.median)}});
        ++result.evaluations;
    }

    std::vector<std::pair<double, dse::point>> order;
    for (dse::trial const& t : search.trials()) {
        if (t.is_done() && t.at != what.defaults && t.result.objectives[0] < 0) {
            order.emplace_back(t.result.objectives[0], t.at);
        }
    }
    std::stable_sort(order.begin(), order.end(),
                     [](auto const& a, auto const& b) { return a.first < b.first; });
    result.ratio = result.noise;
    if (!order.empty()) {
        result.promised = std::exp(order.front().first);
    }
    order.resize(std::min(order.size(), static_cast<std::size_t>(options.verdicts)));
    for (auto const& [least, at] : order) {
        dse::time_ratio const r = against_defaults(at, options.verdict);
        if (r.is_surely_less() && (result.is_default || r.median < result.ratio.median)) {
            result.best = at;
            result.is_default = false;
            result.ratio = r;
        }
    }
    return result;
}

} // namespace sofattn::tune
