// SPDX-License-Identifier: MIT
// Stages joined by type: each takes what the one before it returns, paper Fig. 6 and 11.
#pragma once

#include <boost/hana/fold_left.hpp>
#include <boost/hana/tuple.hpp>

#include <type_traits>
#include <utility>

namespace sofattn {

/// A stage that accepts `Input` under executor `X`.
template <class Stage, class X, class Input>
concept stage_for = std::is_invocable_v<Stage const&, X&, Input const&>;

/// Runs stages in order on one piece of work. The results between stages are named types, so
/// stages in a wrong order do not compile.
template <class... Stages>
class pipeline {
public:
    explicit constexpr pipeline(Stages... stages) : stages_(std::move(stages)...) {}

    template <class X, class Input>
    constexpr auto operator()(X& x, Input const& input) const {
        return boost::hana::fold_left(stages_, input, [&x](auto const& in, auto const& stage) {
            using stage_type = std::remove_cvref_t<decltype(stage)>;
            using input_type = std::remove_cvref_t<decltype(in)>;
            static_assert(stage_for<stage_type, X, input_type>,
                          "pipeline: this stage cannot take the result of the stage before it; the "
                          "order is predict, select, generate (on demand only), attend");
            return stage(x, in);
        });
    }

private:
    boost::hana::tuple<Stages...> stages_;
};

} // namespace sofattn
