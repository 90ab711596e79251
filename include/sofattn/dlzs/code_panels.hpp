// SPDX-License-Identifier: MIT
// Rows of key codes side by side in registers, and their products with up to four queries.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/huge_pages.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/lz_code.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/integer_lanes.hpp>
#include <sofattn/exec/nibbles.hpp>
#include <sofattn/exec/prefetch.hpp>
#include <sofattn/exec/tile_product.hpp>
#include <sofattn/exec/xsimd_lanes.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <tuple>
#include <type_traits>
#include <vector>

namespace sofattn::dlzs {

/// Forms that fit bytes or nibbles: int8, centred_int4, lz_keys, dlzs8 and what derives from them.
template <class P>
concept packed_policy =
    policy<P> && !P::rotated && P::key != operand::real && P::key_bits <= 8 && P::query_bits <= 8;

/// Up to four queries, ready to be multiplied with panels. Codes lie four to a word.
class scan_queries {
public:
    static constexpr index_t rows_most = 4;
    static constexpr index_t codes_most = 2 * max_head_dim; ///< page_ranges has two per channel
    static constexpr index_t words_most = codes_most / exec::dot_depth + 1; ///< whole pairs

    index_t rows = 0;
    alignas(64) std::array<std::array<std::int32_t, words_most>, rows_most> words{};
    std::array<std::int32_t, rows_most> starts{}; ///< where sums begin (exec::dot_start)

    /// code(i) in [-127, 127] for i < count
    template <std::invocable<index_t> Code>
    void set(index_t row, index_t count, Code code) noexcept {
        SOFATTN_ASSERT(row < rows_most && count <= codes_most);
        auto& to = words[static_cast<std::size_t>(row)];
        to.fill(0);
        std::int32_t sum = 0;
        for (index_t i = 0; i < count; ++i) {
            auto const byte = static_cast<std::int8_t>(code(i));
            std::memcpy(reinterpret_cast<char*>(to.data()) + i, &byte, 1);
            sum += byte;
        }
        starts[static_cast<std::size_t>(row)] = exec::dot_start(sum);
    }
    [[nodiscard]] int code(index_t row, index_t i) const noexcept {
        std::int8_t byte{};
        std::memcpy(&byte,
                    reinterpret_cast<char const*>(words[static_cast<std::size_t>(row)].data()) + i,
                    1);
        return byte;
    }
};

/// Rows of codes in the form that a policy's keys are stored in; scanned without allocation, built with.
///
/// A block is a register's width of rows: word by word of four codes, in each the bytes of all its
/// rows (exec::dot's panels); 4-bit codes hold two words in one. Bytes depend on the target, so they
/// are no file format.
///
/// in     queries    scan_queries, as many codes as a row has
///        pages      for the scans of some: numbers of groups of `page` rows, ascending, any gaps
/// out    take(place, sums)  sums[r] of query r and the register of rows at `place`, a multiple of
///                           block_rows: of the row itself, or of its place among the pages' rows
/// pre    codes as detail::store_operand gives them; page is a multiple of block_rows (SOFATTN_ASSERT)
/// error  none
/// events none: this is no circuit
/// exact  sums are those of the codes' products, on every target
/// paper  DLZS phase 1.2, section III-A; the packing is not in the paper
template <packed_policy Policy>
class code_panels {
public:
    /// Stored codes take a nibble, not a byte.
    static constexpr bool nibbles = stored_key_bits<Policy>() <= 4;
    static constexpr index_t block_rows = exec::vector_width;

    code_panels() = default;
    explicit code_panels(index_t codes) : codes_(codes) {
        index_t const words = ceil_div(codes, exec::dot_depth);
        panels_ = nibbles ? ceil_div(words, index_t{2}) : words;
    }

    void reserve(index_t rows) {
        bytes_.reserve(static_cast<std::size_t>(ceil_div(rows, block_rows) * block_bytes()));
    }
    /// Room for one more row. Doubles what there is at least, so that growing costs O(1) per row.
    void make_room() {
        std::size_t const needed = bytes_.size() + static_cast<std::size_t>(block_bytes());
        if (size_ % block_rows == 0 && needed > bytes_.capacity()) {
            bytes_.reserve(std::max(needed, 2 * bytes_.capacity()));
        }
    }
    /// A row of zeros, as are the rows of its block that are not there yet. If it throws nothing has changed.
    void append() {
        if (size_ % block_rows == 0) {
            std::uint8_t const zero = nibbles ? std::uint8_t{0x88} : exec::panel_byte(0);
            bytes_.insert(bytes_.end(), static_cast<std::size_t>(block_bytes()), zero);
        }
        ++size_;
    }
    /// The first `rows`; what follows them in their block is zeros again.
    void truncate(index_t rows) noexcept {
        SOFATTN_ASSERT(rows >= 0 && rows <= size_);
        index_t const end = std::min(size_, ceil_div(rows, block_rows) * block_rows);
        for (index_t row = rows; row < end; ++row) {
            for (index_t i = 0; i < codes_; ++i) {
                set(row, i, 0);
            }
        }
        size_ = rows;
        bytes_.erase(bytes_.begin() + ceil_div(rows, block_rows) * block_bytes(), bytes_.end());
    }
    void set(index_t row, index_t i, int code) noexcept {
        std::uint8_t& at = bytes_[byte_of(row, i)];
        if constexpr (nibbles) {
            auto const nibble = static_cast<unsigned>(code + 8);
            at = static_cast<std::uint8_t>(is_low(i) ? (at & 0xf0u) | nibble
                                                     : (at & 0x0fu) | (nibble << 4));
        } else {
            at = exec::panel_byte(code);
        }
    }
    [[nodiscard]] int code(index_t row, index_t i) const noexcept {
        int const at = bytes_[byte_of(row, i)];
        if constexpr (nibbles) {
            return (is_low(i) ? at % 16 : at / 16) - 8;
        } else {
            int const biased = at - exec::dot_bias;
            return biased > 127 ? biased - 256 : biased; // signed where panels have no bias
        }
    }
    [[nodiscard]] index_t size() const noexcept { return size_; }
    [[nodiscard]] std::span<std::uint8_t const> bytes() const noexcept { return bytes_; }

    /// What a stored code is multiplied as.
    [[nodiscard]] static constexpr int factor(int stored) noexcept {
        return Policy::key == operand::leading_zero
                   ? lz_code::from_stored(static_cast<std::int8_t>(stored)).value()
                   : stored;
    }

    /// The first `count` rows.
    template <class Take>
    void scan(scan_queries const& queries, index_t count, Take take) const noexcept {
        SOFATTN_ASSERT(count >= 0 && count <= size_);
        scan_blocks<false>(
            queries, ceil_div(count, block_rows), [](index_t block) { return block; }, take);
    }
    /// Rows page * p to page * (p + 1) for each p of `pages`.
    template <class Take>
    void scan_pages(scan_queries const& queries, std::span<key_id const> pages, index_t page,
                    Take take) const noexcept {
        SOFATTN_ASSERT(page > 0 && page % block_rows == 0);
        if (pages.empty()) {
            return;
        }
        index_t const each = page / block_rows;
        index_t const last = pages.back(); // may be unfinished
        index_t const in_last = std::min(each, ceil_div(size_, block_rows) - last * each);
        SOFATTN_ASSERT(in_last > 0);
        index_t const blocks = (std::ssize(pages) - 1) * each + in_last;
        auto const numbers = pages.data();
        if (each == 1) {
            scan_blocks<true>(
                queries, blocks, [=](index_t b) { return index_t{numbers[b]}; }, take);
        } else {
            scan_blocks<true>(
                queries, blocks, [=](index_t b) { return numbers[b / each] * each + b % each; },
                take);
        }
    }

private:
    [[nodiscard]] index_t block_bytes() const noexcept { return panels_ * exec::vector_bytes; }
    [[nodiscard]] static bool is_low(index_t i) noexcept { return i / exec::dot_depth % 2 == 0; }
    [[nodiscard]] std::size_t byte_of(index_t row, index_t i) const noexcept {
        SOFATTN_DASSERT(row >= 0 && row < size_ && i >= 0 && i < codes_);
        index_t const word = i / exec::dot_depth;
        return static_cast<std::size_t>(
            row / block_rows * block_bytes() + row % block_rows * exec::dot_depth +
            (nibbles ? word / 2 : word) * exec::vector_bytes + i % exec::dot_depth);
    }
    static constexpr exec::nibble_table table = [] {
        exec::nibble_table t{};
        for (int n = 0; n < 16; ++n) {
            t[static_cast<std::size_t>(n)] = exec::panel_byte(n == 0 ? 0 : factor(n - 8));
        }
        return t;
    }();

    /// Blocks block(0), block(1), ..., which ascend, with `Gaps` or without.
    template <bool Gaps, class Block, class Take>
    void scan_blocks(scan_queries const& queries, index_t blocks, Block block,
                     Take take) const noexcept {
        switch (queries.rows) {
        case 1: return scan_rows<1, Gaps>(queries, blocks, block, take);
        case 2: return scan_rows<2, Gaps>(queries, blocks, block, take);
        case 3: return scan_rows<3, Gaps>(queries, blocks, block, take);
        case 4: return scan_rows<4, Gaps>(queries, blocks, block, take);
        default: SOFATTN_ASSERT(queries.rows == 0);
        }
    }

    template <int Rows, bool Gaps, class Block, class Take>
    void scan_rows(scan_queries const& queries, index_t blocks, Block block,
                   Take take) const noexcept {
        // So many sums at a time hide the latency of their products.
        constexpr int together = Rows == 1 ? 4 : 2;
        index_t const ahead = std::max<index_t>(bytes_ahead / block_bytes(), 1);
        index_t const burst = std::max<index_t>(bytes_burst / block_bytes(), together);
        index_t asked = 0;
        index_t b = 0;
        for (; b + together <= blocks; b += together) {
            if constexpr (Gaps) {
                if (b + burst >= asked && asked < blocks) {
                    index_t const end = std::min(asked + burst, blocks);
                    for (; asked < end; ++asked) {
                        exec::prefetch(bytes_.data() + block(asked) * block_bytes(), block_bytes());
                    }
                }
            }
            some_blocks<Rows, together, !Gaps>(queries, b, std::min(b + ahead, blocks - together),
                                               block, take);
        }
        for (; b < blocks; ++b) {
            some_blocks<Rows, 1, false>(queries, b, b, block, take);
        }
    }

    template <int Rows, int Blocks, bool Ask, class Block, class Take>
    [[gnu::always_inline]] void some_blocks(scan_queries const& queries, index_t first,
                                            index_t next, Block block, Take take) const noexcept {
        using exec::vector_int32;
        std::array<std::uint8_t const*, Blocks> panels;
        std::array<std::uint8_t const*, Blocks> ahead;
        exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
            panels[b] = bytes_.data() + block(first + b) * block_bytes();
            ahead[b] = bytes_.data() + block(next + b) * block_bytes();
        });
        std::array<std::array<vector_int32, Rows>, Blocks> sums;
        exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
            exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                sums[b][r] = vector_int32(queries.starts[r]);
            });
        });
        for (index_t p = 0; p < panels_; ++p) {
            if constexpr (Ask) {
                exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                    exec::prefetch(ahead[b] + p * exec::vector_bytes, exec::vector_bytes);
                });
            }
            if constexpr (nibbles) {
                std::array<exec::nibble_panels, Blocks> words;
                exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                    words[b] = exec::nibble_panels::of(panels[b] + p * exec::vector_bytes, table);
                });
                exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                    auto const four = queries.words[r].data() + 2 * p;
                    exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                        sums[b][r] = exec::dot(sums[b][r], words[b].low, four[0]);
                    });
                    exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                        sums[b][r] = exec::dot(sums[b][r], words[b].high, four[1]);
                    });
                });
            } else {
                exec::detail::unrolled<Rows>([&](auto r) __attribute__((always_inline)) {
                    std::int32_t const four = queries.words[r][static_cast<std::size_t>(p)];
                    exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
                        sums[b][r] =
                            exec::dot(sums[b][r], panels[b] + p * exec::vector_bytes, four);
                    });
                });
            }
        }
        exec::detail::unrolled<Blocks>([&](auto b) __attribute__((always_inline)) {
            take((first + b) * block_rows, sums[b]);
        });
    }

    /// Where blocks follow each other requests are spread over the work, for a burst of them would fill
    /// the processor's queue; blocks with gaps are asked for in bursts, so that their addresses are
    /// translated side by side.
    static constexpr index_t bytes_ahead = 4096;
    static constexpr index_t bytes_burst = 16384;

    std::vector<std::uint8_t, large_allocator<std::uint8_t>>
        bytes_;          ///< [block, panel, row, code of the word]
    index_t codes_ = 0;  ///< per row
    index_t panels_ = 0; ///< per block
    index_t size_ = 0;   ///< rows
};

/// `take` for scans: scores [row, key], rows `stride` apart.
[[nodiscard]] inline auto into_rows(std::int32_t* to, index_t stride) noexcept {
    return [=](index_t key, auto const& sums) {
        constexpr auto rows =
            static_cast<int>(std::tuple_size_v<std::remove_cvref_t<decltype(sums)>>);
        exec::detail::unrolled<rows>([&](auto r) __attribute__((always_inline)) {
            sums[r].store_unaligned(to + r * stride + key);
        });
    };
}
/// The largest score of the rows, or of them and what is there already.
[[nodiscard]] inline auto into_largest(std::int32_t* to, bool and_old) noexcept {
    return [=](index_t key, auto const& sums) {
        auto most = sums[0];
        for (auto const& sum : sums) {
            most = exec::larger(most, sum);
        }
        if (and_old) {
            most = exec::larger(most, exec::vector_int32::load_unaligned(to + key));
        }
        most.store_unaligned(to + key);
    };
}

} // namespace sofattn::dlzs
