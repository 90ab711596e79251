// SPDX-License-Identifier: MIT
// The items of a stream that engines are at work on, from the slowest engine's to the fastest's.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/hw/work.hpp>
#include <sofattn/hw/work_cursor.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <vector>

namespace sofattn::hw::detail {

/// One cursor walks through the stream, as far as somebody asks; engines know the numbers of their
/// items.
class item_window {
public:
    explicit item_window(work_stream& stream) : stream_(&stream), next_(stream) {}

    /// By its number over the whole stream; none at the end. It stays until it is forgotten.
    [[nodiscard]] work_item const* item(std::uint64_t index) {
        entry const* const found = find(index);
        return found == nullptr ? nullptr : found->item;
    }
    /// Of an item that is there; equal items have equal ones.
    [[nodiscard]] std::uint64_t content(std::uint64_t index) {
        entry const* const found = find(index);
        SOFATTN_ASSERT(found != nullptr);
        return found->content;
    }
    void append_contents(std::vector<std::uint64_t>& to) const {
        for (entry const& e : entries_) {
            to.push_back(e.content);
        }
    }
    /// Nobody asks for items before `index` again, nor the stream for their pieces.
    void forget_before(std::uint64_t index) {
        while (first_ < index && !entries_.empty()) {
            entries_.pop_front();
            ++first_;
        }
        stream_->forget_before(entries_.empty() ? next_.program() : entries_.front().program);
    }
    /// Moves on by whole repetitions of the node at `depth` of `next`, to equal items.
    void skip(std::size_t depth, std::uint64_t repetitions) noexcept {
        std::uint64_t const before = next_.index();
        next_.skip(depth, repetitions);
        first_ += next_.index() - before;
    }

    /// Stands behind the items that were asked for.
    [[nodiscard]] work_cursor const& next() const noexcept { return next_; }
    [[nodiscard]] std::size_t programs_held() const noexcept { return stream_->programs_held(); }

private:
    struct entry {
        work_item const* item = nullptr;
        std::uint64_t content = 0;
        std::uint64_t program = 0;
    };

    [[nodiscard]] entry const* find(std::uint64_t index) {
        SOFATTN_DASSERT(index >= first_);
        while (index - first_ >= entries_.size()) {
            if (next_.item() == nullptr) {
                return nullptr;
            }
            entries_.push_back({next_.item(), next_.content(), next_.program()});
            next_.advance(*stream_);
        }
        return &entries_[index - first_];
    }

    work_stream* stream_;
    work_cursor next_;
    std::deque<entry> entries_;
    std::uint64_t first_ = 0; ///< number of the first entry
};

} // namespace sofattn::hw::detail
