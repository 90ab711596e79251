// SPDX-License-Identifier: MIT
// Runs on data that share what they have in common: one prediction and one selection for several
// attenders and schedules.
#pragma once

#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/core/order.hpp>
#include <sofattn/core/query_mask.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/io/npy.hpp>
#include <sofattn/probe/event.hpp>
#include <sofattn/probe/ledger.hpp>
#include <sofattn/probe/trace.hpp>
#include <sofattn/rass/schedule.hpp>
#include <sofattn/sufa/rivals.hpp>
#include <sofattn/sufa/row_arithmetic.hpp>
#include <sofattn/sufa/softmax_state.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace sofattn::hw {

/// Arrays of a layer: NAME_q.npy, NAME_k.npy, NAME_v.npy.
struct layer {
    tensor<float, axis::head, axis::query, axis::dim> q;
    tensor<float, axis::kv_head, axis::key, axis::dim> k;
    tensor<float, axis::kv_head, axis::key, axis::value_dim> v;
    bool is_causal = false;

    [[nodiscard]] static layer read(std::filesystem::path const& folder, std::string const& name,
                                    bool is_causal) {
        auto const part = [&](char const* which) {
            return io::read_npy(folder / (name + "_" + which + ".npy"));
        };
        return {part("q").to_tensor<axis::head, axis::query, axis::dim>(),
                part("k").to_tensor<axis::kv_head, axis::key, axis::dim>(),
                part("v").to_tensor<axis::kv_head, axis::key, axis::value_dim>(), is_causal};
    }
    [[nodiscard]] problem<float> given() const { return {q.view(), k.view(), v.view(), is_causal}; }
};

/// What a run counted, and what other attenders would have on the keys that it kept, in their
/// order.
template <class Probe>
struct outcome {
    Probe counts{};
    std::vector<probe::ledger> others{};
    attention_result result{};
};

/// Another attender on the keys that a run keeps. Prediction and selection, which most of the time
/// goes into, are the same, so they are not done again.
template <class Attender>
class other_attender {
public:
    other_attender(problem<float> const& given, index_t tile_keys)
        : given_(given), shape_(given.shape()), tile_keys_(tile_keys),
          outputs_(static_cast<std::size_t>(shape_.heads * shape_.queries * shape_.value_dim)),
          logits_(static_cast<std::size_t>(shape_.keys)) {
        auto const dims = static_cast<std::size_t>(shape_.value_dim);
        for (std::size_t at = 0; at < outputs_.size(); at += dims) {
            states_.push_back(
                sufa::softmax_state<double>::empty(std::span(outputs_).subspan(at, dims)));
        }
    }

    /// As attend_step: chunks of a tile, in the attender's order.
    template <class Score>
    void operator()(index_t head, index_t query, std::span<ranked<Score> const> kept) {
        sufa::attend_inputs<float, float, float> const inputs{
            given_.queries.slice<axis::head>(head).slice<axis::query>(query),
            given_.keys.slice<axis::kv_head>(head / shape_.group()),
            given_.values.slice<axis::kv_head>(head / shape_.group()), shape_.scale};
        auto const count = std::ssize(kept);
        index_t const chunks = ceil_div(count, tile_keys_);
        for (index_t c = 0; c < chunks; ++c) {
            index_t const at = (Attender::from_back ? chunks - 1 - c : c) * tile_keys_;
            auto const some =
                kept.subspan(static_cast<std::size_t>(at),
                             static_cast<std::size_t>(std::min(tile_keys_, count - at)));
            Attender{}(x_, inputs, some, std::span(logits_),
                       states_[static_cast<std::size_t>(head * shape_.queries + query)]);
        }
    }

    /// The run's counts, with this attender's instead of its own; traffic is the same.
    [[nodiscard]] probe::ledger in_place_of(probe::ledger const& run) {
        std::vector<float> row(static_cast<std::size_t>(shape_.value_dim));
        for (auto const& state : states_) {
            sufa::normalise{}(x_, state, row);
        }
        probe::ledger all;
        for (std::size_t s = 0; s < probe::stage_count; ++s) {
            for (std::size_t e = 0; e < probe::event_count; ++e) {
                auto const at = static_cast<probe::stage>(s);
                auto const what = static_cast<probe::event>(e);
                bool const is_own = at == probe::stage::attention && !probe::is_bytes(what);
                all(at, what, (is_own ? x_.probe : run).count(at, what));
            }
        }
        states_.clear();
        return all;
    }

private:
    problem<float> given_;
    problem_shape shape_;
    index_t tile_keys_;
    exec::counting x_{};
    std::vector<double> outputs_;                     // [head, query, value_dim]
    std::vector<double> logits_;                      // scratch
    std::vector<sufa::softmax_state<double>> states_; // [head * query]
};

/// Who wants which key of a tile, for a schedule that the run did not have.
class wishes {
public:
    explicit wishes(index_t tile_keys) : tile_keys_(tile_keys) {}

    template <class Score>
    void operator()(index_t head, index_t query, std::span<ranked<Score> const> kept) {
        for (auto const& entry : kept) {
            wanted_[{head, query / query_block, entry.key / tile_keys_}][entry.key].set(
                query % query_block);
        }
    }
    /// Key vectors that `Schedule` loads for a block of queries and a tile.
    template <class Schedule>
    [[nodiscard]] std::uint64_t loads(probe::tile_id const& tile) const {
        auto const found =
            wanted_.find({tile.head, tile.first_query / query_block, tile.first_key / tile_keys_});
        if (found == wanted_.end()) {
            return 0;
        }
        std::vector<rass::wanted_key> keys;
        for (auto const& [key, by] : found->second) {
            keys.push_back({key, by});
        }
        rass::schedule_scratch scratch(tile_keys_);
        return static_cast<std::uint64_t>(
            Schedule{}(std::span<rass::wanted_key const>(keys), scratch, [](rass::load) {
            }).key_loads);
    }

private:
    index_t tile_keys_;
    std::map<std::array<index_t, 3>, std::map<key_id, query_mask>> wanted_;
};

/// Runs with the first attender and counts for the others beside it.
template <class Execution, class Predictor, class Selector, class Attender, class... Others>
outcome<typename Execution::probe_type> attend(layer const& of, double kept_share,
                                               index_t tile_keys, wishes* wanted = nullptr) {
    problem<float> const given = of.given();
    problem_shape const shape = given.shape();
    attention_options options = presets::paper::options(kept_share);
    options.tile_keys = tile_keys;
    tensor<float, axis::head, axis::query, axis::value_dim> output(
        {shape.heads, shape.queries, shape.value_dim});
    Execution x;
    std::tuple<other_attender<Others>...> others(other_attender<Others>(given, tile_keys)...);
    attention<Predictor, Selector, Attender, Execution> const run(options);
    auto const result = run(x, given, output.view(), [&](index_t head, index_t query, auto kept) {
        std::apply([&](auto&... other) { (other(head, query, kept), ...); }, others);
        if (wanted != nullptr) {
            (*wanted)(head, query, kept);
        }
    });
    outcome<typename Execution::probe_type> found{std::move(x.probe), {}, result};
    if constexpr (sizeof...(Others) > 0) {
        std::apply(
            [&](auto&... other) { (found.others.push_back(other.in_place_of(found.counts)), ...); },
            others);
    }
    return found;
}
template <class Predictor, class Selector, class Attender, class... Others>
outcome<probe::ledger> count(layer const& of, double kept_share, index_t tile_keys,
                             wishes* wanted = nullptr) {
    return attend<exec::counting, Predictor, Selector, Attender, Others...>(of, kept_share,
                                                                            tile_keys, wanted);
}

/// The same run with another schedule.
template <class Schedule>
probe::trace scheduled_by(probe::trace const& events, wishes const& wanted,
                          problem_shape const& shape) {
    using enum probe::stage;
    probe::trace other;
    auto const emit = [&](probe::ledger const& counts, auto replaced) {
        for (std::size_t s = 0; s < probe::stage_count; ++s) {
            for (std::size_t e = 0; e < probe::event_count; ++e) {
                auto const at = static_cast<probe::stage>(s);
                auto const what = static_cast<probe::event>(e);
                other(at, what, at == schedule ? replaced(what) : counts.count(at, what));
            }
        }
    };
    emit(events.before(), [&](auto what) { return events.before().count(schedule, what); });
    for (auto const& tile : events.tiles()) {
        other.begin_tile(tile.id);
        other.row_kept(tile.kept_most);
        std::uint64_t const loads = wanted.loads<Schedule>(tile.id);
        emit(tile.counts, [&](probe::event what) -> std::uint64_t {
            auto const vector = [&](index_t dim) {
                return loads * static_cast<std::uint64_t>(dim) * probe::formal_operand_bytes;
            };
            return what == probe::event::key_bytes     ? vector(shape.dim)
                   : what == probe::event::value_bytes ? vector(shape.value_dim)
                                                       : tile.counts.count(schedule, what);
        });
    }
    return other;
}
[[nodiscard]] inline std::uint64_t key_loads(probe::trace const& events,
                                             problem_shape const& shape) {
    return events.total().count(probe::stage::schedule, probe::event::key_bytes) /
           (static_cast<std::uint64_t>(shape.dim) * probe::formal_operand_bytes);
}

} // namespace sofattn::hw
