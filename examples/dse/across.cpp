// SPDX-License-Identifier: MIT
#include "dse/across.hpp"

#include "dse/ranks.hpp"

#include <algorithm>
#include <cstddef>
#include <deque>
#include <string>
#include <utility>

namespace sofattn::dse {

namespace {

/// MPI waits by asking again and again, which would cost a processor that evaluations need.
constexpr int pause_milliseconds = 1;

json answer_of(index_t number, evaluation const& e) {
    return {{"number", number}, {"result", to_json(e.result)}, {"details", e.details}};
}
evaluation evaluation_of(json const& answer) {
    return {outcome_from(answer.at("result"), "another rank"), answer.at("details")};
}
std::string text_of(json const& message) {
    return message.dump(-1, ' ', false, json::error_handler_t::replace);
}

void lead(std::vector<trial> const& trials, objective_function const& objective,
          worker_options const& options, outcome_listener const& on_done) {
    ranks const& all = *options.across;
    json order = json::array(); // of outcomes
    auto const over = [&](index_t number, evaluation e) {
        order.push_back(answer_of(number, e));
        on_done(trials[static_cast<std::size_t>(number)], std::move(e));
    };
    // Processes know trials by their place in this batch.
    std::vector<trial> numbered = trials;
    for (std::size_t i = 0; i < numbered.size(); ++i) {
        numbered[i].id = static_cast<index_t>(i);
    }
    worker_pool pool(objective, options);
    std::vector<index_t> room(static_cast<std::size_t>(all.count()),
                              std::max<index_t>(options.count, 1));
    index_t away = 0; // trials that other ranks evaluate
    std::size_t next = 0;
    index_t const processes = all.count() * std::max<index_t>(options.count, 1);
    // Another rank is given one more than it can run, so that it need not wait for a message; but not in the
    // end, where that one would wait while some other process has nothing to do.
    auto const ahead = [&] {
        return std::ssize(numbered) - static_cast<index_t>(next) > processes ? 1 : 0;
    };
    while (next < numbered.size() || away > 0 || !pool.is_idle()) {
        for (index_t r = 1; r < all.count(); ++r) {
            while (next < numbered.size() && room[static_cast<std::size_t>(r)] + ahead() > 0) {
                all.send(r, text_of({{"number", next}}));
                --room[static_cast<std::size_t>(r)];
                ++away;
                ++next;
            }
        }
        while (next < numbered.size() && pool.has_room()) {
            pool.start(numbered[next++]);
        }
        pool.wait(away > 0 ? pause_milliseconds : -1,
                  [&](trial const& t, evaluation e) { over(t.id, std::move(e)); });
        while (auto const message = all.receive()) {
            json const answer = json::parse(message->text);
            ++room[static_cast<std::size_t>(message->from)];
            --away;
            over(answer.at("number").get<index_t>(), evaluation_of(answer));
        }
    }
    std::string const end = text_of({{"end", std::move(order)}});
    for (index_t r = 1; r < all.count(); ++r) {
        all.send(r, end);
    }
}

void follow(std::vector<trial> const& trials, objective_function const& objective,
            worker_options const& options, outcome_listener const& on_done) {
    ranks const& all = *options.across;
    worker_pool pool(objective, options);
    std::deque<trial> waiting;
    for (;;) {
        while (!waiting.empty() && pool.has_room()) {
            pool.start(waiting.front());
            waiting.pop_front();
        }
        pool.wait(pause_milliseconds, [&](trial const& t, evaluation const& e) {
            all.send(0, text_of(answer_of(t.id, e)));
        });
        while (auto const message = all.receive()) {
            json const told = json::parse(message->text);
            if (auto const end = told.find("end"); end != told.end()) {
                for (json const& answer : *end) {
                    on_done(trials[answer.at("number").get<std::size_t>()], evaluation_of(answer));
                }
                return;
            }
            auto const number = told.at("number").get<std::size_t>();
            trial of = trials.at(number);
            of.id = static_cast<index_t>(number);
            waiting.push_back(std::move(of));
        }
    }
}

} // namespace

void evaluate_across(std::vector<trial> const& trials, objective_function const& objective,
                     worker_options const& options, outcome_listener const& on_done) {
    if (options.across->is_root()) {
        lead(trials, objective, options, on_done);
    } else {
        follow(trials, objective, options, on_done);
    }
}

} // namespace sofattn::dse
