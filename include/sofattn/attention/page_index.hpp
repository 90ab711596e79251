// SPDX-License-Identifier: MIT
// What prefill of whole pages knows of one KV head's keys and values before it meets a query.
#pragma once

#include <sofattn/attention/segment_sums.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/page_sketch.hpp>
#include <sofattn/sufa/key_value_pages.hpp>

#include <utility>

namespace sofattn {

/// What a sequence's change makes of its sketches.
struct sketch_change {
    bool is_anew = false; ///< else they stay, but for pages that are new or go
    dlzs::page_sketches sketches{};
};

/// Sketches of the keys' pages, sums of the values of each segment, and keys and values as products read
/// them: copies, so that what it is built from may go. Built at once, or token by token as a sequence grows.
///
/// What has grown is a function of the keys, the values and their number n alone, however they came: sketches are
/// calibrated on the first b keys, where b is the largest of 16, 32, 64 and so on that is there, and steps that a
/// later page does not fit double (page_sketches). So pages are sketched anew whenever n has doubled, from keys of
/// the caller's, and n tokens cost O(n). An index made at once is calibrated on all keys; it has the bytes of
/// one that has grown where n is one of those numbers, and becomes one if it grows.
///
/// in     keys [key, dim], values [key, value_dim], any strides, or in pages of a pool
/// pre    as many values as keys, both finite and of at most max_head_dim channels (SOFATTN_ASSERT)
/// error  none; allocates but where it says noexcept, and if that throws nothing has changed
template <class Products>
class page_index {
public:
    /// Whether keys and values are rounded to bf16.
    static constexpr bool rounds = sufa::key_value_pages<Products>::each == 2;

    page_index() = default;

    /// At once.
    template <token_rows<axis::dim> Keys, token_rows<axis::value_dim> Values>
    page_index(Keys const& keys, Values const& values)
        : sketches_(keys), value_sums_(values.template extent<axis::value_dim>()),
          pages_(keys, values) {
        value_sums_.reserve(pages_.size());
        value_sums_.append(values);
    }

    /// Of no token yet.
    page_index(index_t dim, index_t value_dim)
        : sketches_(dim), value_sums_(value_dim), pages_(dim, value_dim) {}

    /// keys and values of all tokens of the sequence, of which it has the first keys() already.
    template <token_rows<axis::dim> Keys, token_rows<axis::value_dim> Values>
    void grow(Keys const& keys, Values const& values) {
        index_t const tokens = keys.template extent<axis::key>();
        reserve(tokens);
        append(keys, values, recalibrated(keys));
    }
    /// Forgets all tokens but those of `keys`, the first ones.
    template <token_rows<axis::dim> Keys>
    void truncate(Keys const& keys) {
        truncate(keys.template extent<axis::key>(), recalibrated(keys));
    }

    // --- in steps, for several that change together or not at all ---

    /// Room for so many tokens.
    void reserve(index_t tokens) {
        sketches_.reserve(tokens);
        value_sums_.reserve(tokens);
        pages_.reserve(tokens);
    }
    /// What sketches are where these are all keys.
    template <token_rows<axis::dim> Keys>
    [[nodiscard]] sketch_change recalibrated(Keys const& keys) const {
        index_t const tokens = keys.template extent<axis::key>();
        if (sketches_.is_calibrated_for(tokens)) {
            return {};
        }
        index_t const by = dlzs::page_sketches::calibrated_by(tokens);
        return {true, by == 0 ? dlzs::page_sketches(dim()) : dlzs::page_sketches(keys, by)};
    }
    /// As grow. pre: there is room, and change is recalibrated(keys)
    template <token_rows<axis::dim> Keys, token_rows<axis::value_dim> Values>
    void append(Keys const& keys, Values const& values, sketch_change change) noexcept {
        if (change.is_anew) {
            sketches_ = std::move(change.sketches);
        } else {
            sketches_.append(keys);
        }
        value_sums_.append(values);
        pages_.append(keys, values);
    }
    /// As above. pre: change is recalibrated(the first `tokens` keys)
    void truncate(index_t tokens, sketch_change change) noexcept {
        if (change.is_anew) {
            sketches_ = std::move(change.sketches);
        } else {
            sketches_.truncate(tokens);
        }
        value_sums_.truncate(tokens);
        pages_.truncate(tokens);
    }

    [[nodiscard]] dlzs::page_sketches const& sketches() const noexcept { return sketches_; }
    /// Of whole segments.
    [[nodiscard]] segment_sums const& value_sums() const noexcept { return value_sums_; }
    [[nodiscard]] sufa::key_value_pages<Products> const& pages() const noexcept { return pages_; }
    [[nodiscard]] index_t keys() const noexcept { return pages_.size(); }
    [[nodiscard]] index_t dim() const noexcept { return sketches_.dim(); }
    [[nodiscard]] index_t value_dim() const noexcept { return value_sums_.value_dim(); }
    /// Of what copies share with others, too.
    [[nodiscard]] index_t bytes() const noexcept {
        return sketches_.bytes() + value_sums_.bytes() + pages_.bytes();
    }

private:
    dlzs::page_sketches sketches_;
    segment_sums value_sums_;
    sufa::key_value_pages<Products> pages_;
};

} // namespace sofattn
