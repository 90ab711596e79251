// SPDX-License-Identifier: MIT
// What is attended to: shapes, mask and scale; K and V themselves, or the projections that give them.
#pragma once

#include <sofattn/attention/logit_terms.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/finite.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/projection.hpp>

#include <algorithm>
#include <cmath>
#include <string>

namespace sofattn {

namespace detail {

/// What is wrong with a shape, found without a word: kernels ask, and may neither throw nor allocate.
class shape_fault {
public:
    [[nodiscard]] constexpr bool found() const noexcept { return what_ != nullptr; }

    /// Remembers the first that does not hold. `number` ends the limit; negative: nothing does.
    constexpr void require(bool holds, char const* what, index_t value, char const* limit,
                           index_t number = -1) noexcept {
        if (!found() && !holds) {
            what_ = what;
            value_ = value;
            limit_ = limit;
            number_ = number;
        }
    }
    void raise() const {
        if (found()) {
            std::string const number = number_ < 0 ? std::string() : std::to_string(number_);
            throw error(std::string("attention: ") + what_, std::to_string(value_),
                        limit_ + number);
        }
    }

private:
    char const* what_ = nullptr;
    index_t value_ = 0;
    char const* limit_ = "";
    index_t number_ = -1;
};

} // namespace detail

/// Extents and mask that both kinds of problem share.
struct problem_shape {
    index_t heads = 0;
    index_t kv_heads = 0;
    index_t queries = 0;
    index_t keys = 0;
    index_t dim = 0;       ///< of queries and keys
    index_t value_dim = 0; ///< of values and outputs
    bool causal = false;
    double scale = 0;   ///< logits = scale * q.k
    index_t window = 0; ///< keys up to its own that a causal query sees; 0: all
    index_t prefix = 0; ///< first keys that a causal query sees wherever it stands
    logit_terms terms{};

    /// Query heads that read one KV head (GQA).
    [[nodiscard]] index_t group() const noexcept { return heads / kv_heads; }

    /// Where query `q` stands among the keys: the last at the last. Before the first, if there are more
    /// queries than keys.
    [[nodiscard]] index_t place(index_t q) const noexcept { return q + keys - queries; }
    /// The nearest key's position.
    [[nodiscard]] index_t position(index_t q) const noexcept {
        return std::clamp<index_t>(place(q), 0, keys - 1);
    }

    /// Keys that query `q` may attend to: all, or, causal, those up to its own position, where the
    /// last query stands at the last key (bottom-right aligned), and those of the prefix.
    [[nodiscard]] index_t visible(index_t q) const noexcept {
        return causal ? std::clamp<index_t>(q + 1 + keys - queries, std::min(prefix, keys), keys)
                      : keys;
    }

    /// The same without those that lie before the window.
    [[nodiscard]] key_range sees(index_t q) const noexcept {
        index_t const to = visible(q);
        return {window > 0 ? std::max<index_t>(to - window, 0) : 0, to};
    }

    /// The first thing that makes this no attention, but for the scale.
    [[nodiscard]] constexpr detail::shape_fault fault() const noexcept {
        detail::shape_fault f;
        f.require(heads > 0, "query heads", heads, "at least 1");
        f.require(kv_heads > 0, "KV heads", kv_heads, "at least 1");
        f.require(kv_heads <= 0 || heads % kv_heads == 0, "query heads", heads,
                  "a multiple of the KV heads, ", kv_heads);
        f.require(queries > 0, "query tokens", queries, "at least 1");
        f.require(keys > 0, "key tokens", keys, "at least 1");
        f.require(dim > 0 && dim <= max_head_dim, "head dimension of queries and keys", dim,
                  "from 1 to ", max_head_dim);
        f.require(value_dim > 0 && value_dim <= max_head_dim, "head dimension of values", value_dim,
                  "from 1 to ", max_head_dim);
        f.require(window >= 0, "window", window, "at least 0");
        f.require(window == 0 || causal, "window", window, "0 where attention is not causal");
        f.require(prefix >= 0, "prefix", prefix, "at least 0");
        f.require(prefix == 0 || causal, "prefix", prefix, "0 where attention is not causal");
        f.require(prefix == 0 || window == 0, "prefix", prefix, "0 where there is a window");
        return f;
    }
    [[nodiscard]] bool is_scaled() const noexcept { return std::isfinite(scale) && scale > 0; }
    [[nodiscard]] bool is_valid() const noexcept {
        return !fault().found() && is_scaled() && terms.are_valid(heads);
    }

    /// Throws `error` for shapes that make no attention.
    void validate() const {
        fault().raise();
        if (!is_scaled()) {
            throw error("attention: softmax scale", std::to_string(scale), "positive and finite");
        }
        if (!terms.are_valid(heads)) {
            throw error("attention: soft cap, ALiBi slopes or sinks, the cap",
                        std::to_string(terms.softcap), "numbers up to 1e20, the cap at least 0");
        }
    }
};

/// Attention over keys and values that exist. Those in std::int8_t are codes with a scale per token and KV
/// head (scaled_view), which dense attention and decode read, but nothing that predicts scores from keys.
template <storage_float Query, storage_element KeyValue = Query>
struct problem {
    view<Query const, axis::head, axis::query, axis::dim> queries;
    stored_view<KeyValue, axis::kv_head, axis::key, axis::dim> keys;
    stored_view<KeyValue, axis::kv_head, axis::key, axis::value_dim> values;
    bool causal = false;
    double scale = 0;   ///< 0: 1 / sqrt(dim)
    index_t window = 0; ///< keys up to its own that a causal query sees; 0: all
    index_t prefix = 0; ///< first keys that a causal query sees wherever it stands (prefix LM)
    logit_terms terms{};

    /// As the arrays say, right or wrong.
    [[nodiscard]] problem_shape extents() const noexcept {
        problem_shape s;
        s.heads = queries.template extent<axis::head>();
        s.kv_heads = keys.template extent<axis::kv_head>();
        s.queries = queries.template extent<axis::query>();
        s.keys = keys.template extent<axis::key>();
        s.dim = queries.template extent<axis::dim>();
        s.value_dim = values.template extent<axis::value_dim>();
        s.causal = causal;
        s.window = window;
        s.prefix = prefix;
        s.terms = terms;
        s.scale = scale == 0 && s.dim > 0 ? 1.0 / std::sqrt(static_cast<double>(s.dim)) : scale;
        return s;
    }
    /// The first thing in which the three arrays do not fit each other.
    [[nodiscard]] detail::shape_fault fault() const noexcept {
        problem_shape const s = extents();
        detail::shape_fault f;
        f.require(keys.template extent<axis::dim>() == s.dim, "head dimension of keys",
                  keys.template extent<axis::dim>(), "that of queries, ", s.dim);
        f.require(values.template extent<axis::kv_head>() == s.kv_heads, "KV heads of values",
                  values.template extent<axis::kv_head>(), "those of keys, ", s.kv_heads);
        f.require(values.template extent<axis::key>() == s.keys, "tokens of values",
                  values.template extent<axis::key>(), "those of keys, ", s.keys);
        if constexpr (requires { keys.scales(); }) {
            auto const fits = [&](auto const& scales, char const* heads, char const* tokens) {
                f.require(scales.template extent<axis::kv_head>() == s.kv_heads, heads,
                          scales.template extent<axis::kv_head>(), "those of keys, ", s.kv_heads);
                f.require(scales.template extent<axis::key>() == s.keys, tokens,
                          scales.template extent<axis::key>(), "those of keys, ", s.keys);
            };
            fits(keys.scales(), "KV heads of key scales", "tokens of key scales");
            fits(values.scales(), "KV heads of value scales", "tokens of value scales");
        }
        return f;
    }
    [[nodiscard]] bool is_valid() const noexcept {
        return !fault().found() && extents().is_valid();
    }
    /// Throws `error` if they do not, or make no attention.
    [[nodiscard]] problem_shape shape() const {
        fault().raise();
        problem_shape const s = extents();
        s.validate();
        return s;
    }

    /// Throws `error` naming the first NaN or infinity. Scores are compared, so none may be there.
    void require_finite() const {
        sofattn::require_finite("attention: queries", queries);
        sofattn::require_finite("attention: keys", keys);
        sofattn::require_finite("attention: values", values);
    }
};

/// Attention over tokens whose keys and values are predicted first and generated on demand: the
/// paper's whole flow (Fig. 6). K = X Wk + bk, rotated; V = X Wv + bv.
template <storage_float Query, storage_float Model = Query>
struct projected_problem {
    view<Query const, axis::head, axis::query, axis::dim> queries;
    view<Model const, axis::key, axis::channel> tokens;
    view<Model const, axis::channel, axis::kv_head, axis::dim> key_weights;
    view<Model const, axis::channel, axis::kv_head, axis::value_dim> value_weights;
    view<Model const, axis::kv_head, axis::dim> key_bias{};         ///< extent 0: none
    view<Model const, axis::kv_head, axis::value_dim> value_bias{}; ///< extent 0: none
    dlzs::rope const* rotation = nullptr;                           ///< of keys; null: none
    bool causal = false;
    double scale = 0; ///< 0: 1 / sqrt(dim)

    /// Throws `error` if the arrays do not fit each other.
    [[nodiscard]] problem_shape shape() const {
        problem_shape s;
        s.heads = queries.template extent<axis::head>();
        s.kv_heads = key_weights.template extent<axis::kv_head>();
        s.queries = queries.template extent<axis::query>();
        s.keys = tokens.template extent<axis::key>();
        s.dim = queries.template extent<axis::dim>();
        s.value_dim = value_weights.template extent<axis::value_dim>();
        s.causal = causal;
        s.scale = scale == 0 && s.dim > 0 ? 1.0 / std::sqrt(static_cast<double>(s.dim)) : scale;
        index_t const channels = tokens.template extent<axis::channel>();
        auto const equal = [](index_t value, index_t to, char const* what, char const* of) {
            if (value != to) {
                throw error(std::string("attention: ") + what, std::to_string(value),
                            std::string(of) + ", " + std::to_string(to));
            }
        };
        equal(key_weights.template extent<axis::dim>(), s.dim, "head dimension of key weights",
              "that of queries");
        equal(value_weights.template extent<axis::kv_head>(), s.kv_heads,
              "KV heads of value weights", "those of key weights");
        equal(key_weights.template extent<axis::channel>(), channels, "channels of key weights",
              "those of tokens");
        equal(value_weights.template extent<axis::channel>(), channels, "channels of value weights",
              "those of tokens");
        if (key_bias.size() > 0) {
            equal(key_bias.size(), s.kv_heads * s.dim, "elements of the key bias",
                  "KV heads times head dimension");
        }
        if (value_bias.size() > 0) {
            equal(value_bias.size(), s.kv_heads * s.value_dim, "elements of the value bias",
                  "KV heads times head dimension");
        }
        if (rotation != nullptr) {
            equal(rotation->dim(), s.dim, "dimension of the RoPE", "that of keys");
        }
        s.validate();
        return s;
    }

    /// Throws `error` naming the first NaN or infinity.
    void require_finite() const {
        sofattn::require_finite("attention: queries", queries);
        sofattn::require_finite("attention: tokens", tokens);
        sofattn::require_finite("attention: key weights", key_weights);
        sofattn::require_finite("attention: value weights", value_weights);
        sofattn::require_finite("attention: key bias", key_bias);
        sofattn::require_finite("attention: value bias", value_bias);
    }

    [[nodiscard]] dlzs::projection<Model, axis::dim> key_projection(index_t kv_head) const {
        dlzs::projection<Model, axis::dim> p;
        p.weights = key_weights.template slice<axis::kv_head>(kv_head);
        if (key_bias.size() > 0) {
            p.bias = key_bias.template slice<axis::kv_head>(kv_head);
        }
        p.rotation = rotation;
        return p;
    }
    [[nodiscard]] dlzs::projection<Model, axis::value_dim> value_projection(index_t kv_head) const {
        dlzs::projection<Model, axis::value_dim> p;
        p.weights = value_weights.template slice<axis::kv_head>(kv_head);
        if (value_bias.size() > 0) {
            p.bias = value_bias.template slice<axis::kv_head>(kv_head);
        }
        return p;
    }
};

} // namespace sofattn
