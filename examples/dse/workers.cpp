// SPDX-License-Identifier: MIT
#include "dse/workers.hpp"

#include "dse/across.hpp"
#include "dse/ranks.hpp"
#include <sofattn/core/error.hpp>

#ifdef _OPENMP
#include <omp.h>
#endif
#include <poll.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <string>
#include <system_error>
#include <utility>

namespace sofattn::dse {

using clock = std::chrono::steady_clock;

/// A process that evaluates one trial.
struct worker_pool::worker {
    trial of;
    pid_t process = -1;
    int pipe = -1; ///< its answer comes through it
    std::string answer;
    clock::time_point started;
};

namespace {

[[noreturn]] void fail(char const* what) {
    throw error(std::string("worker process: ") + what,
                "refused (" + std::generic_category().message(errno) + ")", "possible");
}

/// In the worker's process: computes, answers, ends. Nothing of the parent's may run again, neither
/// destructors nor buffers of streams.
[[noreturn]] void work(trial const& of, objective_function const& objective, int to,
                       worker_options const& options) noexcept {
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGKILL); // nobody waits for an answer any more
#endif
#ifdef _OPENMP
    if (options.threads_each > 0) {
        omp_set_num_threads(static_cast<int>(options.threads_each));
    }
#else
    static_cast<void>(options);
#endif
    std::string answer;
    try {
        evaluation found;
        try {
            found = objective(of.at);
        } catch (std::exception const& e) {
            found = {outcome::failure(e.what()), {}};
        } catch (...) {
            found = {outcome::failure("an unknown exception"), {}};
        }
        // Not finite: JSON has no word for it, and the search would say the same.
        for (auto const* values : {&found.result.objectives, &found.result.violations}) {
            if (!std::all_of(values->begin(), values->end(),
                             [](double v) { return v - v == 0.0; })) {
                found = {outcome::failure("a value is not finite"), found.details};
                break;
            }
        }
        json const text = {{"result", to_json(found.result)}, {"details", found.details}};
        answer = text.dump(-1, ' ', false, json::error_handler_t::replace);
    } catch (...) { // memory
        _exit(1);
    }
    for (std::size_t at = 0; at < answer.size();) {
        ssize_t const n = ::write(to, answer.data() + at, answer.size() - at);
        if (n < 0 && errno != EINTR) {
            _exit(1);
        }
        at += static_cast<std::size_t>(std::max<ssize_t>(n, 0));
    }
    _exit(0);
}

int reaped(pid_t process, int pipe) noexcept {
    ::close(pipe);
    int status = 0;
    while (waitpid(process, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

evaluation ended(int status, std::string const& text) {
    if (WIFSIGNALED(status)) {
        return {outcome::failure("ended by signal " + std::to_string(WTERMSIG(status))), {}};
    }
    json const answer = json::parse(text, nullptr, false);
    if (WEXITSTATUS(status) != 0 || answer.is_discarded()) {
        return {outcome::failure("exit code " + std::to_string(WEXITSTATUS(status)) +
                                 " without an answer"),
                {}};
    }
    return {outcome_from(answer.at("result"), "worker process"), answer.at("details")};
}

evaluation too_late(double most_seconds) {
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "longer than %g seconds", most_seconds);
    return {outcome::failure(text.data(), trial_status::timed_out), {}};
}

} // namespace

worker_pool::worker_pool(objective_function const& objective, worker_options const& options)
    : objective_(objective), options_(options) {}

worker_pool::~worker_pool() {
    for (worker const& w : running_) {
        ::kill(w.process, SIGKILL);
        reaped(w.process, w.pipe);
    }
}

bool worker_pool::has_room() const noexcept {
    return std::ssize(running_) < std::max<index_t>(options_.count, 1);
}

void worker_pool::start(trial const& of) {
    std::array<int, 2> ends{};
    if (::pipe(ends.data()) != 0) {
        fail("pipe");
    }
    worker w{of, fork(), ends[0], {}, clock::now()};
    if (w.process == 0) {
        ::close(ends[0]);
        work(of, objective_, ends[1], options_);
    }
    ::close(ends[1]); // so that the pipe ends with the process
    if (w.process < 0) {
        ::close(ends[0]);
        fail("fork");
    }
    running_.push_back(std::move(w));
}

void worker_pool::wait(int most_milliseconds, outcome_listener const& on_done) {
    if (running_.empty() && most_milliseconds < 0) {
        return;
    }
    auto const limit = std::chrono::duration<double>(options_.most_seconds);
    std::vector<pollfd> ready;
    int wait_milliseconds = most_milliseconds;
    for (worker const& w : running_) {
        ready.push_back({w.pipe, POLLIN, 0});
        if (options_.most_seconds > 0) {
            auto const left = limit - (clock::now() - w.started);
            auto const milliseconds = static_cast<int>(
                std::clamp(std::chrono::duration<double, std::milli>(left).count(), 0.0, 1e9));
            wait_milliseconds = wait_milliseconds < 0
                                    ? milliseconds + 1
                                    : std::min(wait_milliseconds, milliseconds + 1);
        }
    }
    if (::poll(ready.data(), ready.size(), wait_milliseconds) < 0 && errno != EINTR) {
        fail("poll");
    }
    for (std::size_t i = running_.size(); i-- > 0;) { // backwards: entries go
        bool over = false;
        evaluation found;
        worker& w = running_[i];
        if (ready[i].revents != 0) {
            std::array<char, 65536> part{};
            ssize_t const n = ::read(w.pipe, part.data(), part.size());
            if (n > 0) {
                w.answer.append(part.data(), static_cast<std::size_t>(n));
            } else if (n == 0 || errno != EINTR) {
                over = true;
                found = ended(reaped(w.process, w.pipe), w.answer);
            }
        } else if (options_.most_seconds > 0 && clock::now() - w.started > limit) {
            ::kill(w.process, SIGKILL);
            reaped(w.process, w.pipe);
            over = true;
            found = too_late(options_.most_seconds);
        }
        if (over) {
            trial const of = w.of;
            running_.erase(running_.begin() + static_cast<index_t>(i));
            on_done(of, std::move(found));
        }
    }
}

void evaluate_all(std::vector<trial> const& trials, objective_function const& objective,
                  worker_options const& options, outcome_listener const& on_done) {
    if (options.across != nullptr && options.across->count() > 1) {
        evaluate_across(trials, objective, options, on_done);
        return;
    }
    worker_pool pool(objective, options);
    std::size_t next = 0;
    while (next < trials.size() || !pool.is_idle()) {
        while (next < trials.size() && pool.has_room()) {
            pool.start(trials[next++]);
        }
        pool.wait(-1, on_done);
    }
}

batch_evaluator one_by_one(objective_function objective) {
    return [of = std::move(objective)](
               std::vector<trial> const& trials, worker_options const& options,
               outcome_listener const& on_done) { evaluate_all(trials, of, options, on_done); };
}

} // namespace sofattn::dse
