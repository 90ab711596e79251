// SPDX-License-Identifier: MIT
// Where an engine stands in a stream of work, and where the stream repeats itself.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/hw/pipeline_graph.hpp>
#include <sofattn/hw/work.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::hw::detail {

/// Items by their number; equal ones have one.
class item_numbers {
public:
    [[nodiscard]] std::uint64_t of(work_item const& item) {
        key_.clear();
        for (auto const* cycles :
             {&item.busy_cycles, &item.latency_cycles, &item.resource_cycles, &item.output_bytes}) {
            key_.push_back(cycles->size());
            key_.insert(key_.end(), cycles->begin(), cycles->end());
        }
        key_.push_back(item.ends_row ? 1 : 0);
        return numbers_.emplace(key_, numbers_.size()).first->second;
    }

private:
    std::map<std::vector<std::uint64_t>, std::uint64_t> numbers_;
    std::vector<std::uint64_t> key_;
};

/// A piece of work, flat and without what does nothing.
class work_program {
public:
    struct node {
        std::uint64_t times = 1;
        std::uint64_t length = 1; ///< items in one repetition
        std::size_t first_part = 0;
        std::size_t parts = 0; ///< none: an item
        std::size_t item = 0;
        std::uint64_t content = 0; ///< of an item
    };

    work_program(pipeline_graph const& graph, item_numbers& numbers, work of)
        : root_(add(graph, numbers, of)) {}

    [[nodiscard]] bool empty() const noexcept { return !root_; }
    [[nodiscard]] std::size_t root() const noexcept { return *root_; }
    [[nodiscard]] node const& at(std::size_t n) const noexcept { return nodes_[n]; }
    [[nodiscard]] std::size_t part(node const& of, std::size_t n) const noexcept {
        return parts_[of.first_part + n];
    }
    [[nodiscard]] work_item const& item(node const& of) const noexcept { return items_[of.item]; }

private:
    std::optional<std::size_t> add(pipeline_graph const& graph, item_numbers& numbers, work& of) {
        if (of.times == 0) {
            return std::nullopt;
        }
        if (of.parts.empty()) {
            graph.validate(of.item);
            nodes_.push_back({.times = of.times,
                              .length = 1,
                              .item = items_.size(),
                              .content = numbers.of(of.item)});
            items_.push_back(std::move(of.item));
            return nodes_.size() - 1;
        }
        std::vector<std::size_t> parts;
        std::uint64_t length = 0;
        for (work& part : of.parts) {
            if (auto const n = add(graph, numbers, part)) {
                parts.push_back(*n);
                length += nodes_[*n].times * nodes_[*n].length;
            }
        }
        if (parts.empty()) {
            return std::nullopt;
        }
        if (parts.size() == 1) { // repetitions of repetitions
            nodes_[parts.front()].times *= of.times;
            return parts.front();
        }
        nodes_.push_back({.times = of.times,
                          .length = length,
                          .first_part = parts_.size(),
                          .parts = parts.size()});
        parts_.insert(parts_.end(), parts.begin(), parts.end());
        return nodes_.size() - 1;
    }

    std::vector<node> nodes_;
    std::vector<std::size_t> parts_;
    std::vector<work_item> items_;
    std::optional<std::size_t> root_; // last: add() fills the others
};

/// The programs between the slowest cursor and the fastest.
class work_stream {
public:
    work_stream(pipeline_graph const& graph, work_source source)
        : graph_(&graph), source_(std::move(source)) {}

    /// Program `n`, asked for when somebody first gets there; none after the end.
    [[nodiscard]] work_program const* program(std::uint64_t n) {
        SOFATTN_DASSERT(n >= first_);
        while (n - first_ >= programs_.size() && !ended_) {
            std::optional<work> next = source_();
            if (!next) {
                ended_ = true;
                break;
            }
            auto made = std::make_unique<work_program>(*graph_, numbers_, std::move(*next));
            if (!made->empty()) {
                programs_.push_back(std::move(made));
            }
        }
        return n - first_ < programs_.size() ? programs_[n - first_].get() : nullptr;
    }
    /// Nobody asks for programs before `n` again.
    void forget_before(std::uint64_t n) {
        while (first_ < n && !programs_.empty()) {
            programs_.pop_front();
            ++first_;
        }
    }
    [[nodiscard]] std::size_t programs_held() const noexcept { return programs_.size(); }

private:
    pipeline_graph const* graph_;
    work_source source_;
    item_numbers numbers_;
    std::deque<std::unique_ptr<work_program>> programs_;
    std::uint64_t first_ = 0;
    bool ended_ = false;
};

/// One engine's place. Items are numbered over the whole stream.
class work_cursor {
public:
    /// A node that the cursor is inside of.
    struct level {
        std::size_t node = 0;
        std::size_t part = 0;
        std::uint64_t repetition = 0; ///< of node.times, from 0
        std::uint64_t start = 0;      ///< number of the node's first item
    };

    explicit work_cursor(work_stream& stream) { enter_program(stream); }

    /// The item to be done, none at the end of the stream.
    [[nodiscard]] work_item const* item() const noexcept { return item_; }
    /// Equal items have equal ones.
    [[nodiscard]] std::uint64_t content() const noexcept { return content_; }
    [[nodiscard]] std::uint64_t index() const noexcept { return index_; }
    [[nodiscard]] std::uint64_t program() const noexcept { return number_; }
    /// Outermost first; empty at the end of the stream.
    [[nodiscard]] std::span<level const> levels() const noexcept { return levels_; }
    [[nodiscard]] work_program::node const& node(level const& of) const noexcept {
        return program_->at(of.node);
    }

    void advance(work_stream& stream) {
        ++index_;
        while (!levels_.empty()) {
            level& here = levels_.back();
            auto const& node = program_->at(here.node);
            if (here.part + 1 < node.parts) {
                ++here.part;
                enter(program_->part(node, here.part));
                return;
            }
            if (here.repetition + 1 < node.times) {
                ++here.repetition;
                here.part = 0;
                if (node.parts > 0) {
                    enter(program_->part(node, 0));
                }
                return; // a leaf keeps its item
            }
            levels_.pop_back();
        }
        ++number_;
        enter_program(stream);
    }

    /// Moves by whole repetitions of the node at `depth`, which has enough of them left.
    void skip(std::size_t depth, std::uint64_t repetitions) noexcept {
        std::uint64_t const items = repetitions * node(levels_[depth]).length;
        levels_[depth].repetition += repetitions;
        SOFATTN_DASSERT(levels_[depth].repetition < node(levels_[depth]).times);
        for (std::size_t d = depth + 1; d < levels_.size(); ++d) {
            levels_[d].start += items;
        }
        index_ += items;
    }

private:
    void enter(std::size_t node) {
        for (;;) {
            levels_.push_back({.node = node, .start = index_});
            auto const& here = program_->at(node);
            if (here.parts == 0) {
                item_ = &program_->item(here);
                content_ = here.content;
                return;
            }
            node = program_->part(here, 0);
        }
    }
    void enter_program(work_stream& stream) {
        program_ = stream.program(number_);
        item_ = nullptr;
        if (program_ != nullptr) {
            enter(program_->root());
        }
    }

    work_program const* program_ = nullptr;
    work_item const* item_ = nullptr;
    std::uint64_t content_ = 0;
    std::uint64_t number_ = 0;
    std::uint64_t index_ = 0;
    std::vector<level> levels_;
};

} // namespace sofattn::hw::detail
