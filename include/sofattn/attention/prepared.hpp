// SPDX-License-Identifier: MIT
// What the loops of the pipeline read: a KV head's keys and values, and the queries of a selection,
// each in the forms that predictor, tail and executor ask for.
#pragma once

#include <sofattn/core/hadamard.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/register_scores.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/register_rows.hpp>
#include <sofattn/sufa/register_tail.hpp>
#include <sofattn/sufa/tail.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace sofattn::detail {

template <class Predictor>
inline constexpr bool predicts = !std::same_as<Predictor, dlzs::unpredicted>;

struct not_on_registers {};

/// One KV head as kernels read it.
template <dlzs::policy Predictor, sufa::tail_policy Tail>
struct head_on_registers {
    dlzs::register_keys<Predictor> columns;
    sufa::register_rows<axis::key, axis::dim> keys;
    sufa::register_rows<axis::key, axis::value_dim> values;
    sufa::register_tail_rows<Tail> stand_ins;
};
/// And queries.
template <dlzs::policy Predictor>
struct queries_on_registers {
    dlzs::register_queries<Predictor> codes;
    std::vector<sufa::register_rows<axis::query, axis::dim>> heads;
};

template <class X, class Form>
using if_on_registers = std::conditional_t<exec::on_registers<X>, Form, not_on_registers>;

/// Additions of a rotation, if there is one.
[[nodiscard]] inline std::uint64_t rotation_adds(index_t rows, index_t dims) noexcept {
    return static_cast<std::uint64_t>(rows * hadamard_adds(dims));
}

/// One KV head, for all its queries. Where keys are predicted, `indexed` are the predicted ones, and
/// keys and values come into being in tensors (`Keys`, `Values`).
template <dlzs::policy Predictor, sufa::tail_policy Tail, exec::executor_like X, class Indexed,
          class Key, class Value>
struct prepared_head {
    key_view<Indexed const> indexed;
    key_view<Key const> keys;
    value_view<Value const> values;
    dlzs::key_index<Predictor> index{};
    dlzs::key_means<Predictor> means{};
    sufa::tail_values<Tail> tail{};
    [[no_unique_address]] if_on_registers<X, head_on_registers<Predictor, Tail>> registers{};

    /// `calibrates`: lines of scores will be asked for.
    template <class Keys, class Values>
    prepared_head(X& x, key_view<Indexed const> indexed_keys, Keys const& key_rows,
                  Values const& value_rows, bool calibrates)
        : indexed(indexed_keys), keys(view_of(key_rows)), values(view_of(value_rows)) {
        if constexpr (predicts<Predictor>) {
            if constexpr (Predictor::key == dlzs::operand::leading_zero) {
                x.probe(probe::stage::key_prediction, probe::event::lz_encode,
                        static_cast<std::uint64_t>(indexed.size()));
            }
            if constexpr (Predictor::rotated) {
                x.probe(probe::stage::key_prediction, probe::event::add,
                        rotation_adds(indexed.template extent<axis::key>(),
                                      indexed.template extent<axis::dim>()));
            }
            index = dlzs::key_index<Predictor>(indexed);
        }
        if (calibrates) {
            means = dlzs::key_means<Predictor>(indexed, index);
        }
        if constexpr (Tail::by != sufa::stand_in::nobody) {
            if constexpr (sufa::tail_values<Tail>::has_sums) {
                x.probe(probe::stage::compensation, probe::event::add,
                        static_cast<std::uint64_t>(values.size()));
            }
            tail = sufa::tail_values<Tail>(values);
        }
        if constexpr (exec::on_registers<X>) {
            if constexpr (predicts<Predictor>) {
                registers.columns = dlzs::register_keys<Predictor>(index);
            }
            registers.keys = sufa::register_rows<axis::key, axis::dim>(key_rows);
            registers.values = sufa::register_rows<axis::key, axis::value_dim>(value_rows);
            if constexpr (Tail::by != sufa::stand_in::nobody) {
                registers.stand_ins =
                    sufa::register_tail_rows<Tail>(tail, values.template extent<axis::key>(),
                                                   values.template extent<axis::value_dim>());
            }
        }
    }

private:
    template <class T, class... Axes>
    static view<T const, Axes...> view_of(view<T const, Axes...> rows) noexcept {
        return rows;
    }
    template <class T, class... Axes>
    static view<T const, Axes...> view_of(tensor<T, Axes...> const& rows) noexcept {
        return rows.cview();
    }
};

/// All queries of the heads of one selection.
template <dlzs::policy Predictor, exec::executor_like X, class Query>
struct prepared_queries {
    view<Query const, axis::head, axis::query, axis::dim> queries; // of the selection's heads
    dlzs::query_codes<Predictor> codes{};
    std::vector<dlzs::score_calibration> calibration{}; ///< [head of the selection]
    [[no_unique_address]] if_on_registers<X, queries_on_registers<Predictor>> registers{};

    /// visible(q): keys that query q sees.
    template <class Head, std::invocable<index_t> Visible>
    prepared_queries(view<Query const, axis::head, axis::query, axis::dim> all, Head const& head,
                     bool calibrates, Visible visible)
        : queries(all), calibration(static_cast<std::size_t>(all.template extent<axis::head>())) {
        index_t const heads = queries.template extent<axis::head>();
        if constexpr (predicts<Predictor>) {
            codes = dlzs::query_codes<Predictor>(queries, head.index);
        }
        if constexpr (dlzs::needs_slope<Predictor>) {
            for (index_t h = 0; calibrates && h < heads; ++h) {
                calibration[static_cast<std::size_t>(h)] =
                    dlzs::calibrate<Predictor>(queries.template slice<axis::head>(h), codes, h,
                                               head.indexed, head.index, visible);
            }
        }
        if constexpr (exec::on_registers<X>) {
            if constexpr (predicts<Predictor>) {
                registers.codes = dlzs::register_queries<Predictor>(
                    codes, heads, queries.template extent<axis::query>(),
                    queries.template extent<axis::dim>());
            }
            for (index_t h = 0; h < heads; ++h) {
                registers.heads.emplace_back(queries.template slice<axis::head>(h));
            }
        }
    }
};

} // namespace sofattn::detail
