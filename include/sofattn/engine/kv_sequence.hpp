// SPDX-License-Identifier: MIT
// The KV cache of one sequence: its pages in a pool, and codes of its keys that grow with it.
#pragma once

#include <sofattn/attention/dense.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_rows.hpp>
#include <sofattn/engine/page_codes.hpp>
#include <sofattn/engine/verdict.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace sofattn::engine {

namespace detail {
template <storage_element T>
struct kv_file; // what writes and reads exports
} // namespace detail

/// Keys and values of a sequence in all layers of a model, one page table for all of them.
///
/// A step of the model: `extend` by its tokens, then in each layer `write` their keys and values and
/// attend with what `describe` fills in. `truncate` takes tokens back, `fork` starts another sequence
/// from the same tokens; shared pages are copied when one of both writes into them.
///
/// Codes for method::best_keys are a function of the keys and their number alone, however they came:
/// from `coded_from` tokens on, a head's keys are coded by steps and a centre that are those of up to
/// 4096 of its first b keys, spread evenly, where b is the largest coded_from * 2^i that is there. So all
/// keys are coded anew whenever their number has doubled, and steps never grow old.
///
/// In int8 each row of a token is quantised by itself as it is written: its scale is its largest magnitude /
/// 127, its codes are the nearest, so an element is off by half a scale at most (0.4 % of the row's largest).
/// A row of zeros has scale 0, and so has one whose largest is below 2^-113. What attends sees scale * code,
/// and codes for method::best_keys are made of that, too: they could not be made anew of anything else.
///
/// Codes for method::pages, where the layout asks for them, are a function of the keys, the values and their
/// number as well (page_index.hpp): sketches are made anew whenever the number has doubled, copies never.
///
/// One thread at a time changes a sequence; different sequences may be used by different threads, those
/// that share pages, too. Nothing throws; what fails changes nothing.
template <storage_element T>
class kv_sequence {
public:
    explicit kv_sequence(kv_pool<T>& pool) noexcept : pool_(&pool) {}
    kv_sequence(kv_sequence&& other) noexcept
        : pool_(other.pool_), pages_(std::move(other.pages_)), layers_(std::move(other.layers_)),
          length_(std::exchange(other.length_, 0)) {
        other.pages_.clear();
        other.layers_.clear();
    }
    kv_sequence& operator=(kv_sequence&& other) noexcept {
        kv_sequence old(std::move(*this));
        pool_ = other.pool_;
        pages_ = std::exchange(other.pages_, {});
        layers_ = std::exchange(other.layers_, {});
        length_ = std::exchange(other.length_, 0);
        return *this;
    }
    kv_sequence(kv_sequence const&) = delete; // fork says it
    kv_sequence& operator=(kv_sequence const&) = delete;
    ~kv_sequence() { pool_->give_back(pages_); }

    [[nodiscard]] kv_pool<T>& pool() const noexcept { return *pool_; }
    /// Tokens, those that are yet to be written included.
    [[nodiscard]] std::int64_t length() const noexcept { return length_; }
    /// Those that are there in a layer.
    [[nodiscard]] std::int64_t written(std::int64_t layer) const noexcept {
        return layers_.empty() ? 0 : layers_[static_cast<std::size_t>(layer)].written;
    }
    [[nodiscard]] page_table table() const noexcept {
        return {pages_, pool_->layout().page_tokens};
    }
    /// Of the codes of all layers.
    [[nodiscard]] std::int64_t code_bytes() const noexcept {
        std::int64_t bytes = 0;
        for (auto const& layer : layers_) {
            for (auto const& codes : layer.codes) {
                bytes += std::ssize(codes.keys().bytes()) + std::ssize(codes.pages().bytes());
            }
            bytes += layer.pages.bytes();
        }
        return bytes;
    }
    [[nodiscard]] std::vector<key_codes> const& codes(std::int64_t layer) const noexcept {
        return layers_[static_cast<std::size_t>(layer)].codes;
    }
    /// Of no KV head where the layout does not ask for them.
    [[nodiscard]] engine::page_codes const& page_codes(std::int64_t layer) const noexcept {
        return layers_[static_cast<std::size_t>(layer)].pages;
    }

    /// Room for `tokens` more.
    [[nodiscard]] verdict extend(std::int64_t tokens) noexcept {
        kv_layout const& l = pool_->layout();
        detail::checker c;
        c.in_range("tokens", tokens, 0, detail::most_tokens - length_,
                   "from 0 to what makes 2^31 - 1 with those that are there");
        if (!c.ok() || tokens == 0) {
            return c.found();
        }
        std::int64_t const used = length_ % l.page_tokens; // of the last page
        bool const copies = used > 0 && pool_->is_shared(pages_.back());
        std::int64_t const more =
            pages_needed(length_ + tokens) - std::ssize(pages_) + (copies ? 1 : 0);
        verdict const none_free{status::no_free_page, "pages needed", static_cast<double>(more),
                                "at most the free pages of the pool"};
        if (more > pool_->free_pages()) { // before memory for their numbers is asked for
            return none_free;
        }
        verdict const room = detail::guarded([&] {
            pages_.reserve(pages_.size() + static_cast<std::size_t>(more));
            if (layers_.empty()) {
                std::vector<layer_state> layers(static_cast<std::size_t>(l.layers));
                for (layer_state& layer : layers) {
                    layer.pages = no_page_codes();
                }
                layers_ = std::move(layers);
            }
        });
        if (!room.ok()) {
            return room;
        }
        auto const before = pages_.size();
        std::int32_t const last = pages_.empty() ? -1 : pages_.back();
        pages_.resize(before + static_cast<std::size_t>(more)); // no more than was reserved
        if (!pool_->take(more, last, pages_.data() + before)) {
            pages_.resize(before); // another sequence has taken some meanwhile
            return none_free;
        }
        if (copies) {
            // The first new page takes the place of the shared one.
            std::int32_t const old = pages_[before - 1];
            pool_->copy_page(old, pages_[before], used);
            pages_.erase(pages_.begin() + static_cast<std::ptrdiff_t>(before) - 1);
            pool_->give_back({&old, 1});
        }
        length_ += tokens;
        return {};
    }

    /// Keys and values of the next `tokens` of a layer, [kv_head, token, channel] in f32, f16 or bf16;
    /// rounded to the pool's type. NaN and infinity are refused: codes have none.
    [[nodiscard]] verdict write(std::int64_t layer, std::int64_t tokens, operand const& key,
                                operand const& value) noexcept {
        detail::checker c;
        c.in_range("layer", layer, 0, pool_->layout().layers - 1, "from 0 to layers - 1");
        c.in_range("tokens", tokens, 0, length_ - (c.ok() ? written(layer) : 0),
                   "from 0 to what the sequence was extended by and is not written yet");
        if (!c.ok() || tokens == 0) {
            return c.found();
        }
        rows_type const rows = rows_of(layer);
        verdict const fits = rows.check(tokens, key, value);
        if (!fits.ok()) {
            return fits;
        }
        std::int64_t const first = written(layer);
        rows.store(first, tokens, key, value);
        return code(layer, first + tokens);
    }

    /// Forgets all tokens but the first `tokens`. Never fails where those that go are not written in any layer,
    /// so that an `extend` can be taken back.
    [[nodiscard]] verdict truncate(std::int64_t tokens) noexcept {
        detail::checker c;
        c.in_range("tokens", tokens, 0, length_, "from 0 to the sequence's length");
        if (!c.ok()) {
            return c.found();
        }
        if (std::ranges::any_of(layers_, [=](auto const& l) { return l.written > tokens; })) {
            verdict const forgotten = forget_codes(tokens);
            if (!forgotten.ok()) {
                return forgotten;
            }
        }
        auto const keep = static_cast<std::size_t>(pages_needed(tokens));
        pool_->give_back(std::span(pages_).subspan(keep));
        pages_.resize(keep);
        length_ = tokens;
        return {};
    }

    /// Makes `into` a sequence of the same tokens; what it had is given back. Pages are shared, codes
    /// copied. All layers must be written: two sequences may not write to one page.
    [[nodiscard]] verdict fork(kv_sequence& into) const noexcept {
        detail::checker c;
        for (layer_state const& state : layers_) {
            c.require(state.written == length_, status::mismatch, "written tokens",
                      static_cast<double>(state.written),
                      "the sequence's length in every layer: write what it was extended by");
        }
        if (!c.ok()) {
            return c.found();
        }
        return detail::guarded([&] {
            kv_sequence twin(*pool_);
            std::vector<std::int32_t> pages = pages_;
            twin.layers_ = layers_;
            for (layer_state& state : twin.layers_) {
                for (key_codes& codes : state.codes) {
                    codes.reserve(2 * state.calibrated); // copies have no room of their own
                }
            }
            pool_->share(pages);
            twin.pages_ = std::move(pages);
            twin.length_ = length_;
            into = std::move(twin);
        });
    }

    /// Fills in what a descriptor says of keys: counts, sizes, memory, pages and codes; where there are no
    /// codes for method::best_keys, dense_below, too, unless d.how is method::pages already. All tokens of the
    /// layer must be written. Valid until the sequence changes.
    [[nodiscard]] verdict describe(std::int64_t layer, attention_desc& d) const noexcept {
        kv_layout const& l = pool_->layout();
        detail::checker c;
        c.in_range("layer", layer, 0, l.layers - 1, "from 0 to layers - 1");
        c.in_range("length", length_, 1, detail::most_tokens, "at least 1");
        c.require(!c.ok() || written(layer) == length_, status::mismatch, "written tokens",
                  c.ok() ? static_cast<double>(written(layer)) : 0,
                  "the sequence's length: write what it was extended by");
        if (!c.ok()) {
            return c.found();
        }
        auto const k = pool_->keys(layer);
        auto const v = pool_->values(layer);
        constexpr auto bytes = static_cast<std::int64_t>(sizeof(T));
        d.kv_heads = l.kv_heads;
        d.keys = length_;
        d.qk_dim = l.qk_dim;
        d.v_dim = l.v_dim;
        d.key = {k.data(), stored_type(), k.strides()[0] * bytes, k.strides()[1] * bytes};
        d.value = {v.data(), stored_type(), v.strides()[0] * bytes, v.strides()[1] * bytes};
        d.key_scales = d.value_scales = {};
        if constexpr (is_scaled) {
            auto const k_scales = pool_->key_scales(layer);
            auto const v_scales = pool_->value_scales(layer);
            d.key_scales = {k_scales.data(), k_scales.strides()[0] * 4, k_scales.strides()[1] * 4};
            d.value_scales = {v_scales.data(), v_scales.strides()[0] * 4,
                              v_scales.strides()[1] * 4};
        }
        d.pages = {pages_.data(), std::ssize(pages_), l.page_tokens, l.pages};
        layer_state const& state = layers_[static_cast<std::size_t>(layer)];
        d.codes = state.codes.empty() ? nullptr : state.codes.data();
        d.prefill_pages = state.pages.kv_heads() > 0 ? &state.pages : nullptr;
        if (d.how != method::pages && state.codes.empty()) {
            d.dense_below = std::max(d.dense_below, length_ + 1);
        }
        return {};
    }

private:
    friend struct detail::kv_file<T>;
    static constexpr bool is_scaled = kv_pool<T>::is_scaled;
    using rows_type = detail::kv_rows<T>;

    struct layer_state {
        std::int64_t written = 0;
        std::int64_t calibrated = 0;    ///< keys that gave steps and centre; 0: no codes
        std::vector<key_codes> codes{}; ///< [kv_head], or empty
        engine::page_codes pages{};     ///< of all KV heads, or of none
    };

    [[nodiscard]] static constexpr dtype stored_type() noexcept {
        return is_scaled                ? dtype::int8
               : std::same_as<T, float> ? dtype::f32
               : std::same_as<T, half>  ? dtype::f16
                                        : dtype::bf16;
    }
    [[nodiscard]] std::int64_t pages_needed(std::int64_t tokens) const noexcept {
        std::int64_t const each = pool_->layout().page_tokens;
        return (tokens + each - 1) / each;
    }
    /// Keys that steps are made of where there are `tokens`; 0 where there are no codes.
    [[nodiscard]] std::int64_t calibrated_by(std::int64_t tokens) const noexcept {
        return calibrated_by(tokens, pool_->layout().coded_from);
    }
    [[nodiscard]] static constexpr std::int64_t calibrated_by(std::int64_t tokens,
                                                              std::int64_t by) noexcept {
        if (by == 0 || tokens < by) {
            return 0;
        }
        while (by <= tokens / 2) {
            by *= 2;
        }
        return by;
    }

    [[nodiscard]] rows_type rows_of(std::int64_t layer) const noexcept {
        return {*pool_, layer, table()};
    }

    /// Codes of the first `tokens` keys of a layer, made anew. May throw std::bad_alloc.
    [[nodiscard]] std::vector<key_codes> coded(rows_type const& rows, std::int64_t tokens) const {
        using calibration = dlzs::key_calibration<dlzs::centred_int4>;
        constexpr std::int64_t sample_most = 4096;
        kv_layout const& l = pool_->layout();
        std::int64_t const by = calibrated_by(tokens);
        std::int64_t const step = (by + sample_most - 1) / sample_most;
        tensor<typename rows_type::read_as, axis::key, axis::dim> sample(
            {(by + step - 1) / step, l.qk_dim});
        std::vector<key_codes> codes;
        codes.reserve(static_cast<std::size_t>(l.kv_heads));
        for (std::int64_t h = 0; h < l.kv_heads; ++h) {
            for (std::int64_t k = 0; k < by; k += step) {
                rows.read_key(h, k, &sample(k / step, 0));
            }
            codes.emplace_back(calibration::of(sample.cview()));
            codes.back().reserve(2 * by); // until they are made anew
            append(codes.back(), rows, h, tokens);
        }
        return codes;
    }
    /// Until there are `tokens` of them; there is room.
    static void append(key_codes& codes, rows_type const& rows, index_t head,
                       std::int64_t tokens) noexcept {
        std::array<typename rows_type::read_as, max_head_dim> key;
        while (codes.size() < tokens) {
            rows.read_key(head, codes.size(), key.data());
            codes.append(
                view<typename rows_type::read_as const, axis::dim>(key.data(), {codes.dim()}));
        }
    }
    /// Codes of `tokens` keys that are in the pool; if there is memory for all, they are written.
    [[nodiscard]] verdict code(std::int64_t layer, std::int64_t tokens) noexcept {
        layer_state& state = layers_[static_cast<std::size_t>(layer)];
        rows_type const rows = rows_of(layer);
        engine::page_codes::new_sketches sketches;
        verdict const room = detail::guarded([&] {
            sketches = state.pages.recalibrated(rows.keys(tokens));
            state.pages.reserve(tokens);
            if (calibrated_by(tokens) != state.calibrated) {
                state.codes = coded(rows, tokens); // what follows does not fail
                state.calibrated = calibrated_by(tokens);
            }
        });
        if (!room.ok()) {
            return room;
        }
        for (std::size_t h = 0; h < state.codes.size(); ++h) {
            append(state.codes[h], rows, static_cast<index_t>(h), tokens);
        }
        state.pages.append(rows.keys(tokens), rows.values(tokens), std::move(sketches));
        state.written = tokens;
        return {};
    }

    /// Codes and rows of all layers but those of the first `tokens`.
    [[nodiscard]] verdict forget_codes(std::int64_t tokens) noexcept {
        // They may have to be made anew by older steps, which takes memory.
        std::vector<std::vector<key_codes>> remade;
        std::vector<engine::page_codes::new_sketches> sketches;
        verdict const room = detail::guarded([&] {
            remade.resize(layers_.size());
            sketches.resize(layers_.size());
            for (std::size_t at = 0; at < layers_.size(); ++at) {
                std::int64_t const stay = std::min(layers_[at].written, tokens);
                auto const rows = rows_of(static_cast<std::int64_t>(at));
                sketches[at] = layers_[at].pages.recalibrated(rows.keys(stay));
                if (calibrated_by(stay) != layers_[at].calibrated && calibrated_by(stay) != 0) {
                    remade[at] = coded(rows, stay);
                }
            }
        });
        if (!room.ok()) {
            return room;
        }
        for (std::size_t at = 0; at < layers_.size(); ++at) {
            layer_state& state = layers_[at];
            std::int64_t const stay = std::min(state.written, tokens);
            if (calibrated_by(stay) != state.calibrated) {
                state.codes = std::move(remade[at]);
                state.calibrated = calibrated_by(stay);
            }
            for (auto& codes : state.codes) {
                codes.truncate(stay);
            }
            state.pages.truncate(stay, std::move(sketches[at]));
            state.written = stay;
        }
        return {};
    }

    [[nodiscard]] engine::page_codes no_page_codes() const {
        kv_layout const& l = pool_->layout();
        switch (l.page_codes) {
        case kept_page_codes::none: break;
        case kept_page_codes::f32:
            return engine::page_codes::growing<dense_products::f32>(l.kv_heads, l.qk_dim, l.v_dim);
        case kept_page_codes::bf16:
            return engine::page_codes::growing<dense_products::bf16>(l.kv_heads, l.qk_dim, l.v_dim);
        }
        return {};
    }

    kv_pool<T>* pool_;
    std::vector<std::int32_t> pages_;
    std::vector<layer_state> layers_;
    std::int64_t length_ = 0;
};

} // namespace sofattn::engine
