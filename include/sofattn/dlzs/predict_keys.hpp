// SPDX-License-Identifier: MIT
// Key prediction (phase 1.1): K^ = X Wk from leading-zero codes of Wk, paper section III-A.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/calibration.hpp>
#include <sofattn/dlzs/lz_code.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/projection.hpp>
#include <sofattn/dlzs/register_products.hpp>
#include <sofattn/exec/executor.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace sofattn::dlzs {

/// The paper's phase 1.1: int8 tokens, 8-bit weights as 4-bit codes, K^ of 16 bits.
struct coded_weights {
    static constexpr operand weight = operand::leading_zero;
    static constexpr int token_bits = 8;
    static constexpr int weight_bits = 8;
    static constexpr int key_bits = 16;
    static constexpr lz_rounding rounding = lz_rounding::down;
    /// A step per token: activations differ by orders of magnitude, and K^ is rescaled anyway.
    static constexpr granularity token_step = granularity::per_row;
    /// One step for the head's weights: a step per output loses 0.008 recall on recorded data
    /// (layer 5), since it moves where powers of two fall in each column.
    static constexpr granularity weight_step = granularity::per_tensor;
    static constexpr index_t max_channels = 65536; ///< width of the sum is proved for it
};

/// Same, but weights multiplied as int8: the rival that shows what the codes lose.
struct integer_weights : coded_weights {
    static constexpr operand weight = operand::integer;
};

template <class P>
concept key_prediction_policy = requires {
    { P::weight } -> std::convertible_to<operand>;
    { P::token_bits } -> std::convertible_to<int>;
    { P::weight_bits } -> std::convertible_to<int>;
    { P::key_bits } -> std::convertible_to<int>;
    { P::rounding } -> std::convertible_to<lz_rounding>;
    { P::token_step } -> std::convertible_to<granularity>;
    { P::weight_step } -> std::convertible_to<granularity>;
    { P::max_channels } -> std::convertible_to<index_t>;
    requires(P::weight != operand::real);
    requires(P::token_bits >= 2 && P::token_bits <= 16);
    requires(P::weight_bits >= 2 && P::weight_bits <= 16);
    requires(P::key_bits >= 2 && P::key_bits <= 16);
    requires(P::token_step != granularity::per_channel);
    requires(P::weight_step != granularity::per_row);
    requires(P::max_channels >= 1);
};

/// Wk of one KV head, converted offline.
template <key_prediction_policy Policy>
class weight_codes {
public:
    using element = stored_operand<Policy::weight, Policy::weight_bits>;

    weight_codes() noexcept = default;

    template <storage_float T>
    explicit weight_codes(view<T const, axis::channel, axis::dim> weights)
        : codes_(weights.extents()) {
        auto const coded = quantise<Policy::weight_bits>(weights, Policy::weight_step);
        steps_ = coded.steps;
        for (index_t c = 0; c < weights.template extent<axis::channel>(); ++c) {
            for (index_t d = 0; d < weights.template extent<axis::dim>(); ++d) {
                codes_(c, d) =
                    detail::store_operand<Policy::weight, Policy::weight_bits, Policy::rounding>(
                        coded.codes(c, d));
            }
        }
    }

    [[nodiscard]] view<element const, axis::channel, axis::dim> codes() const noexcept {
        return codes_.view();
    }
    [[nodiscard]] float step(index_t dim) const noexcept {
        return steps_[steps_.size() == 1 ? 0u : static_cast<std::size_t>(dim)].step;
    }
    /// Size of the stored codes: sign and bit length, or the integer.
    [[nodiscard]] index_t bits() const noexcept {
        constexpr int each = Policy::weight == operand::leading_zero
                                 ? (Policy::weight_bits <= 8 ? 4 : 5)
                                 : Policy::weight_bits;
        return codes_.template extent<axis::channel>() * codes_.template extent<axis::dim>() * each;
    }

private:
    tensor<element, axis::channel, axis::dim> codes_;
    std::vector<quantiser_step> steps_;
};

namespace detail {

/// Bytes whose sums fit 32 bits, as dot products take them.
template <key_prediction_policy Policy>
inline constexpr bool sums_of_bytes = Policy::token_bits <= 8 && Policy::weight_bits <= 8 &&
                                      largest(Policy::weight, Policy::weight_bits) *
                                              code_limit<Policy::token_bits>* Policy::max_channels
                                          <= std::numeric_limits<std::int32_t>::max();

} // namespace detail

/// Predicts the keys of a run of tokens.
///
/// in     tokens  [key, channel]  quantised X
///        weights [channel, dim]  weight_codes::codes
///        shift   bits, count     from calibrate_shift, part of the model
/// out    keys    [key, dim]      K^ = saturate(sum >> shift), in units of
///                                token step * weight step * 2^shift
/// pre    equal channels, at most Policy::max_channels; 0 <= shift < 63 (SOFATTN_ASSERT)
/// error  none at run time; a bad policy does not satisfy dlzs::key_prediction_policy
/// events a product per (key, channel, dim): shift_add or multiply_add, or skipped_zero
/// exact  bit-identical on every executor; the sum cannot overflow. On vector registers bytes go
///        through dot products, for which weights and some tokens are copied
/// paper  DLZS phase 1.1, section III-A, Fig. 12
template <key_prediction_policy Policy = coded_weights>
struct predict_keys {
    using weight_element = typename weight_codes<Policy>::element;
    using token_element = code_storage<Policy::token_bits>;
    using key_element = code_storage<Policy::key_bits>;
    using sum_type = std::int64_t;

    static_assert(static_cast<double>(detail::largest(Policy::weight, Policy::weight_bits)) *
                          static_cast<double>(code_limit<Policy::token_bits>) *
                          static_cast<double>(Policy::max_channels) <
                      static_cast<double>(std::numeric_limits<sum_type>::max()),
                  "predict_keys: the sum could overflow; lower max_channels, token_bits or "
                  "weight_bits in the policy");

    template <exec::executor_like X>
    void operator()(X& x, view<token_element const, axis::key, axis::channel> tokens,
                    view<weight_element const, axis::channel, axis::dim> weights, int shift,
                    view<key_element, axis::key, axis::dim> keys) const noexcept {
        SOFATTN_ASSERT(shift >= 0 && shift < 63);
        constexpr std::int64_t limit = code_limit<Policy::key_bits>;
        std::uint64_t skipped = 0;
        for_each_sum(x, tokens, weights, skipped, [&](index_t k, index_t d, sum_type sum) {
            // Arithmetic shift: floor, as dropping low bits does.
            keys(k, d) = static_cast<key_element>(std::clamp(sum >> shift, -limit, limit));
        });
        if constexpr (X::probe_type::enabled) {
            auto const products =
                static_cast<std::uint64_t>(tokens.size() * weights.template extent<axis::dim>());
            x.probe(probe::stage::key_prediction, product(), products - skipped);
            x.probe(probe::stage::key_prediction, probe::event::skipped_zero, skipped);
        }
    }

    /// The smallest shift with which no sum of this sample saturates; tokens and weights as above.
    /// A model's calibration runs it once on representative text. The same on any executor; nobody
    /// counts it.
    template <exec::executor_like X = exec::reference>
    [[nodiscard]] static int
    calibrate_shift(view<token_element const, axis::key, axis::channel> tokens,
                    view<weight_element const, axis::channel, axis::dim> weights) {
        std::conditional_t<exec::on_registers<X>, X, exec::reference> x;
        std::uint64_t skipped = 0;
        sum_type lowest = 0;
        sum_type highest = 0;
        for_each_sum(x, tokens, weights, skipped, [&](index_t, index_t, sum_type sum) {
            lowest = std::min(lowest, sum);
            highest = std::max(highest, sum);
        });
        constexpr std::int64_t limit = code_limit<Policy::key_bits>;
        int shift = 0;
        while ((highest >> shift) > limit || (lowest >> shift) < -limit) {
            ++shift;
        }
        return shift;
    }

private:
    static constexpr probe::event product() {
        if (Policy::weight == operand::leading_zero) {
            return Policy::token_bits <= 8 ? probe::event::shift_add_8 : probe::event::shift_add_16;
        }
        constexpr int narrow = std::min(Policy::token_bits, Policy::weight_bits);
        return narrow <= 4   ? probe::event::multiply_add_4
               : narrow <= 8 ? probe::event::multiply_add_8
                             : probe::event::multiply_add_16;
    }

    /// Lanes go across the outputs of one token.
    template <class X, class Use>
    static void for_each_sum(X&, view<token_element const, axis::key, axis::channel> tokens,
                             view<weight_element const, axis::channel, axis::dim> weights,
                             std::uint64_t& skipped, Use use) {
        using lanes = typename X::lanes_type;
        using pack = typename lanes::template pack<sum_type>;
        index_t const channels = tokens.template extent<axis::channel>();
        index_t const dims = weights.template extent<axis::dim>();
        SOFATTN_ASSERT(weights.template extent<axis::channel>() == channels &&
                       channels <= Policy::max_channels);
        if constexpr (exec::on_registers<X> && detail::sums_of_bytes<Policy>) {
            for_each_byte_product(
                tokens.template extent<axis::key>(), channels, dims,
                [&](index_t k, index_t c) { return tokens(k, c); },
                [&](index_t c, index_t d) {
                    return static_cast<std::int8_t>(
                        detail::code_value<Policy::weight, Policy::weight_bits>(weights(c, d)));
                },
                use);
            return;
        }
        for (index_t k = 0; k < tokens.template extent<axis::key>(); ++k) {
            for (index_t first = 0; first < dims; first += lanes::width) {
                index_t const block = std::min<index_t>(lanes::width, dims - first);
                pack sum = pack::fill(0);
                for (index_t c = 0; c < channels; ++c) {
                    sum_type const token = tokens(k, c);
                    auto const weight = [&](index_t i) { return weights(c, first + i); };
                    if constexpr (Policy::weight == operand::integer) {
                        sum = sum +
                              pack::fill(token) * lanes::template gather<sum_type>(block, weight);
                        continue;
                    } else {
                        index_t zeros = 0;
                        for (index_t i = 0; i < block; ++i) {
                            zeros += token == 0 || weight(i) == 0 ? 1 : 0;
                        }
                        skipped += static_cast<std::uint64_t>(zeros);
                        if (zeros == block) {
                            continue;
                        }
                        sum = sum + (lanes::template gather<sum_type>(
                                         block,
                                         [&](index_t i) {
                                             return token * lz_code::from_stored(weight(i)).sign();
                                         })
                                     << lanes::template gather<int>(block, [&](index_t i) {
                                            auto const code = lz_code::from_stored(weight(i));
                                            return code.is_zero() ? 0 : code.shift();
                                        }));
                    }
                }
                for (index_t i = 0; i < block; ++i) {
                    use(k, first + i, static_cast<sum_type>(sum.lane[static_cast<std::size_t>(i)]));
                }
            }
        }
    }
};

/// X and one head's Wk codes, with the calibrated shift: everything phase 1.1 needs of a model.
template <key_prediction_policy Policy = coded_weights>
class key_predictor {
public:
    /// Converts `k.weights` and calibrates the shift on `sample` [key, channel]; `k.rotation` must
    /// outlive the predictor. Throws `error` if the model is wider than the policy proves, or RoPE
    /// is for heads of another size.
    template <storage_float T>
    key_predictor(view<T const, axis::key, axis::channel> sample, projection<T, axis::dim> const& k)
        : key_predictor(exec::reference{}, sample, k) {}
    /// The same on an executor's registers, if it has them.
    template <exec::executor_like X, storage_float T>
    key_predictor(X const&, view<T const, axis::key, axis::channel> sample,
                  projection<T, axis::dim> const& k)
        : weights_(k.weights), rotation_(k.rotation) {
        if (k.channels() > Policy::max_channels) {
            throw error("key_predictor: channels of X", std::to_string(k.channels()),
                        "at most " + std::to_string(Policy::max_channels));
        }
        if (rotation_ != nullptr && rotation_->dim() != k.dims()) {
            throw error("key_predictor: dimension of the RoPE", std::to_string(rotation_->dim()),
                        "that of keys, " + std::to_string(k.dims()));
        }
        auto const tokens = quantise<Policy::token_bits>(sample, Policy::token_step);
        shift_ = predict_keys<Policy>::template calibrate_shift<X>(tokens.codes.view(),
                                                                   weights_.codes());
        for (index_t d = 0; d < k.dims(); ++d) {
            bias_.push_back(k.bias_at(d));
        }
    }

    [[nodiscard]] int shift() const noexcept { return shift_; }
    [[nodiscard]] weight_codes<Policy> const& weights() const noexcept { return weights_; }

    /// K^ of `tokens` in real units, bias added and rotated: input of a key_index. The first token
    /// stands at `first_position` of the sequence. Rescaling and bias are part of quantising K^
    /// anew and not counted.
    template <exec::executor_like X, storage_float T>
    [[nodiscard]] tensor<float, axis::key, axis::dim>
    operator()(X& x, view<T const, axis::key, axis::channel> tokens,
               index_t first_position = 0) const {
        auto const coded = quantise<Policy::token_bits>(tokens, Policy::token_step);
        auto const codes = weights_.codes();
        index_t const count = tokens.template extent<axis::key>();
        index_t const dims = codes.template extent<axis::dim>();
        tensor<code_storage<Policy::key_bits>, axis::key, axis::dim> predicted({count, dims});
        predict_keys<Policy>{}(x, coded.codes.view(), codes, shift_, predicted.view());

        tensor<float, axis::key, axis::dim> keys({count, dims});
        double const unit = std::ldexp(1.0, shift_);
        for (index_t k = 0; k < count; ++k) {
            for (index_t d = 0; d < dims; ++d) {
                double const step = static_cast<double>(coded.step(k, 0).step) *
                                    static_cast<double>(weights_.step(d)) * unit;
                // Rounded before the bias is added: nothing here for a compiler to fuse.
                keys(k, d) = static_cast<float>(static_cast<double>(predicted(k, d)) * step) +
                             bias_[static_cast<std::size_t>(d)];
            }
            if (rotation_ != nullptr) {
                (*rotation_)(std::span(&keys(k, 0), static_cast<std::size_t>(dims)),
                             first_position + k);
            }
        }
        if constexpr (X::probe_type::enabled) {
            using enum probe::event;
            auto const elements = static_cast<std::uint64_t>(count * dims);
            auto const at = probe::stage::key_prediction;
            x.probe(at, weight_bytes,
                    static_cast<std::uint64_t>(ceil_div<index_t>(weights_.bits(), 8)));
            x.probe(at, token_bytes,
                    static_cast<std::uint64_t>(tokens.size() * Policy::token_bits / 8));
            if (rotation_ != nullptr) {
                x.probe(at, multiply, 2 * elements); // (cos, sin) times either element of a pair
                x.probe(at, add, elements);
            }
        }
        return keys;
    }

private:
    weight_codes<Policy> weights_;
    rope const* rotation_ = nullptr;
    std::vector<float> bias_;
    int shift_ = 0;
};

} // namespace sofattn::dlzs
