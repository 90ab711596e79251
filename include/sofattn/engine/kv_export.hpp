// SPDX-License-Identifier: MIT
// A sequence of a KV cache as bytes, to be kept in a file or sent to another process.
#pragma once

#include <sofattn/core/crc32c.hpp>
#include <sofattn/core/element.hpp>
#include <sofattn/core/page_table.hpp>
#include <sofattn/core/quantise.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/dlzs/packed_index.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/verdict.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace sofattn::engine {

/// First 128 bytes of an export, format 1. Numbers are in the byte order of the host that wrote them,
/// which order_mark tells; another order is refused.
///
/// Then, for each layer and in it for each KV head:
///     rows     tokens x (qk_dim + v_dim) elements of `type`: key and value of each token, in int8 each
///              with the scales of both after it, 2 x f32
///     centre   qk_dim f32               } only where
///     steps    qk_dim x {step, inverse} f32       } `calibrated`
///     codes    tokens x ceil(qk_dim / 2) bytes    } is not 0
/// Codes are those of dlzs::centred_int4, of channel 2 i in the lower half of byte i, plus 8: from 1 to
/// 15, the same for all targets; a missing last channel is 8. Nothing lies between the parts.
///
/// Readers refuse other formats than their own; a change of any of this is another format.
struct kv_export_head {
    std::array<char, 8> magic; ///< "sofattKV"
    std::uint32_t format;      ///< 1
    std::uint32_t order_mark;  ///< 0x01020304
    std::uint32_t head_bytes;  ///< 128
    std::int32_t type;         ///< engine::dtype of rows
    std::int64_t layers;
    std::int64_t kv_heads;
    std::int64_t qk_dim;
    std::int64_t v_dim;
    std::int64_t tokens;
    std::int64_t coded_from;    ///< of the pool: what codes are made by
    std::int64_t calibrated;    ///< keys that gave steps and centre; 0: there are no codes
    std::int64_t payload_bytes; ///< after the head
    std::array<std::uint8_t, 32> reserved; ///< 0
    std::uint32_t payload_crc;             ///< CRC-32C of what follows the head
    std::uint32_t head_crc;                ///< of the 124 bytes before it
};
static_assert(sizeof(kv_export_head) == 128 && std::is_trivially_copyable_v<kv_export_head>);

namespace detail {

/// Bytes one after the other, there or not.
class byte_writer {
public:
    explicit byte_writer(std::span<std::byte> to) noexcept : to_(to) {}
    void put(void const* from, std::size_t bytes) noexcept {
        std::memcpy(to_.data() + at_, from, bytes);
        at_ += bytes;
    }
    void put(std::uint8_t byte) noexcept { put(&byte, 1); }

private:
    std::span<std::byte> to_;
    std::size_t at_ = 0;
};
class byte_reader {
public:
    explicit byte_reader(std::span<std::byte const> from) noexcept : from_(from) {}
    /// pre: they are there
    void take(void* to, std::size_t bytes) noexcept {
        std::memcpy(to, from_.data(), bytes);
        from_ = from_.subspan(bytes);
    }
    [[nodiscard]] std::span<std::byte const> take(std::size_t bytes) noexcept {
        auto const taken = from_.first(bytes);
        from_ = from_.subspan(bytes);
        return taken;
    }

private:
    std::span<std::byte const> from_;
};

template <storage_element T>
struct kv_file {
    using sequence = kv_sequence<T>;
    static constexpr std::array<char, 8> magic{'s', 'o', 'f', 'a', 't', 't', 'K', 'V'};
    static constexpr std::uint32_t format = 1;
    static constexpr std::uint32_t order_mark = 0x01020304;
    static constexpr auto head_size = static_cast<std::int64_t>(sizeof(kv_export_head));

    [[nodiscard]] static constexpr std::int64_t code_row(std::int64_t qk_dim) noexcept {
        return (qk_dim + 1) / 2;
    }
    /// Of a token's key and value of a head.
    [[nodiscard]] static constexpr std::int64_t row_bytes(kv_layout const& l) noexcept {
        constexpr auto scales =
            static_cast<std::int64_t>(kv_pool<T>::is_scaled ? 2 * sizeof(float) : 0);
        return (l.qk_dim + l.v_dim) * static_cast<std::int64_t>(sizeof(T)) + scales;
    }
    /// After the head, of sizes that a pool has: its rows are known to fit 63 bits.
    [[nodiscard]] static std::int64_t payload(kv_layout const& l, std::int64_t tokens,
                                              bool has_codes) noexcept {
        std::int64_t const codes = has_codes ? 12 * l.qk_dim + tokens * code_row(l.qk_dim) : 0;
        return l.layers * l.kv_heads * (tokens * row_bytes(l) + codes);
    }
    [[nodiscard]] static std::uint32_t head_crc(kv_export_head const& head) noexcept {
        return crc32c(std::as_bytes(std::span(&head, 1)).first(sizeof head - sizeof head.head_crc));
    }

    [[nodiscard]] static verdict complete(sequence const& s) noexcept {
        checker c;
        for (auto const& layer : s.layers_) {
            c.require(layer.written == s.length_, status::mismatch, "written tokens",
                      static_cast<double>(layer.written),
                      "the sequence's length in every layer: write what it was extended by");
        }
        return c.found();
    }
    [[nodiscard]] static std::int64_t bytes(sequence const& s) noexcept {
        return head_size + payload(s.pool_->layout(), s.length_, s.calibrated_by(s.length_) != 0);
    }

    static void write(sequence const& s, std::span<std::byte> to) noexcept {
        kv_layout const& l = s.pool_->layout();
        kv_export_head head{};
        head.magic = magic;
        head.format = format;
        head.order_mark = order_mark;
        head.head_bytes = sizeof head;
        head.type = static_cast<std::int32_t>(sequence::stored_type());
        head.layers = l.layers;
        head.kv_heads = l.kv_heads;
        head.qk_dim = l.qk_dim;
        head.v_dim = l.v_dim;
        head.tokens = s.length_;
        head.coded_from = l.coded_from;
        head.calibrated = s.calibrated_by(s.length_);
        head.payload_bytes = std::ssize(to) - head_size;
        byte_writer out(to.subspan(sizeof head));
        page_table const places = s.table();
        for (std::int64_t layer = 0; s.length_ > 0 && layer < l.layers; ++layer) {
            auto const keys = s.pool_->keys(layer);
            auto const values = s.pool_->values(layer);
            auto const& codes = s.codes(layer);
            for (std::int64_t h = 0; h < l.kv_heads; ++h) {
                for (std::int64_t t = 0; t < s.length_; ++t) {
                    auto const row = places.row(t);
                    out.put(&keys(h, row, 0), static_cast<std::size_t>(l.qk_dim) * sizeof(T));
                    out.put(&values(h, row, 0), static_cast<std::size_t>(l.v_dim) * sizeof(T));
                    if constexpr (kv_pool<T>::is_scaled) {
                        out.put(&s.pool_->key_scales(layer)(h, row), sizeof(float));
                        out.put(&s.pool_->value_scales(layer)(h, row), sizeof(float));
                    }
                }
                if (head.calibrated != 0) {
                    write(codes[static_cast<std::size_t>(h)].keys(), out);
                }
            }
        }
        head.payload_crc = crc32c(to.subspan(sizeof head));
        head.head_crc = head_crc(head);
        std::memcpy(to.data(), &head, sizeof head);
    }
    template <class Codes>
    static void write(Codes const& codes, byte_writer& out) noexcept {
        auto const& by = codes.calibration();
        out.put(by.centre.data(), by.centre.size() * sizeof(float));
        for (quantiser_step const s : by.steps) {
            out.put(&s.step, sizeof s.step);
            out.put(&s.inverse, sizeof s.inverse);
        }
        for (index_t key = 0; key < codes.size(); ++key) {
            for (index_t d = 0; d < codes.dim(); d += 2) {
                int const low = codes.code(key, d);
                int const high = d + 1 < codes.dim() ? codes.code(key, d + 1) : 0;
                out.put(static_cast<std::uint8_t>((low + 8) | (high + 8) << 4));
            }
        }
    }

    /// What the head says, and whether this pool may have it.
    [[nodiscard]] static verdict read_head(std::span<std::byte const> from, kv_layout const& l,
                                           kv_export_head& head) noexcept {
        checker c;
        auto const foreign = [&](bool holds, char const* field, double value, char const* limit) {
            c.require(holds, status::foreign_data, field, value, limit);
            return c.ok();
        };
        auto const have = std::ssize(from);
        if (!foreign(have >= head_size, "bytes", static_cast<double>(have),
                     "at least 128, an export's head")) {
            return c.found();
        }
        std::memcpy(&head, from.data(), sizeof head);
        foreign(head.magic == magic, "magic", 0, "\"sofattKV\", the mark of an export");
        foreign(head.order_mark == order_mark, "order_mark", static_cast<double>(head.order_mark),
                "this host's byte order");
        foreign(head.format == format, "format", static_cast<double>(head.format), "1");
        foreign(head.head_crc == head_crc(head), "head_crc", static_cast<double>(head.head_crc),
                "the checksum of the head");
        foreign(head.head_bytes == sizeof head, "head_bytes", static_cast<double>(head.head_bytes),
                "128");
        auto const same = [&](char const* field, std::int64_t value, std::int64_t wanted) {
            c.require(value == wanted, status::mismatch, field, static_cast<double>(value),
                      "that of the pool");
        };
        same("type", head.type, static_cast<std::int64_t>(sequence::stored_type()));
        same("layers", head.layers, l.layers);
        same("kv_heads", head.kv_heads, l.kv_heads);
        same("qk_dim", head.qk_dim, l.qk_dim);
        same("v_dim", head.v_dim, l.v_dim);
        if (!c.ok()) {
            return c.found();
        }
        std::int64_t const each = l.layers * l.kv_heads * row_bytes(l);
        foreign(head.tokens >= 0 && head.tokens <= most_tokens, "tokens",
                static_cast<double>(head.tokens), "from 0 to 2^31 - 1");
        foreign(head.coded_from >= 0 && head.coded_from <= most_tokens, "coded_from",
                static_cast<double>(head.coded_from), "from 0 to 2^31 - 1");
        foreign(!c.ok() || head.calibrated == sequence::calibrated_by(head.tokens, head.coded_from),
                "calibrated", static_cast<double>(head.calibrated),
                "what coded_from and tokens make it");
        // Fewer bytes than rows take are found before any product can overflow.
        foreign(!c.ok() || (head.tokens <= (have - head_size) / each &&
                            have - head_size == payload(l, head.tokens, head.calibrated != 0) &&
                            head.payload_bytes == have - head_size),
                "bytes", static_cast<double>(have), "as many as the head says");
        if (c.ok()) {
            foreign(head.payload_crc == crc32c(from.subspan(sizeof head)), "payload_crc",
                    static_cast<double>(head.payload_crc), "the checksum of what follows the head");
        }
        return c.found();
    }

    [[nodiscard]] static verdict read(std::span<std::byte const> from, sequence& into) noexcept {
        kv_layout const& l = into.pool_->layout();
        kv_export_head head{};
        verdict const known = read_head(from, l, head);
        if (!known.ok()) {
            return known;
        }
        sequence made(*into.pool_);
        verdict const room = made.extend(head.tokens);
        if (!room.ok()) {
            return room;
        }
        byte_reader in(from.subspan(sizeof head));
        for (std::int64_t layer = 0; head.tokens > 0 && layer < l.layers; ++layer) {
            verdict const found = read_layer(in, layer, head, made);
            if (!found.ok()) {
                return found;
            }
        }
        into = std::move(made);
        return {};
    }

private:
    [[nodiscard]] static verdict read_layer(byte_reader& in, std::int64_t layer,
                                            kv_export_head const& head, sequence& made) noexcept {
        kv_layout const& l = made.pool_->layout();
        bool const uses_codes = head.calibrated != 0 && head.coded_from == l.coded_from;
        auto& state = made.layers_[static_cast<std::size_t>(layer)];
        auto const keys = made.pool_->keys(layer);
        auto const values = made.pool_->values(layer);
        page_table const places = made.table();
        for (std::int64_t h = 0; h < l.kv_heads; ++h) {
            for (std::int64_t t = 0; t < head.tokens; ++t) {
                T* const key = &keys(h, places.row(t), 0);
                T* const value = &values(h, places.row(t), 0);
                in.take(key, static_cast<std::size_t>(l.qk_dim) * sizeof(T));
                in.take(value, static_cast<std::size_t>(l.v_dim) * sizeof(T));
                bool are_numbers = true;
                if constexpr (kv_pool<T>::is_scaled) {
                    std::array<float, 2> scales{};
                    in.take(scales.data(), sizeof scales);
                    made.pool_->key_scales(layer)(h, places.row(t)) = scales[0];
                    made.pool_->value_scales(layer)(h, places.row(t)) = scales[1];
                    // Whatever the code.
                    are_numbers =
                        std::isfinite(128.0f * scales[0]) && std::isfinite(128.0f * scales[1]);
                } else {
                    are_numbers = is_finite(key, l.qk_dim) && is_finite(value, l.v_dim);
                }
                if (!are_numbers) {
                    return {status::not_finite, "rows[]", static_cast<double>(t),
                            "finite, but a row of the token with this number is not"};
                }
            }
            if (head.calibrated != 0) {
                verdict const found = read_codes(in, head, l, uses_codes ? &state.codes : nullptr);
                if (!found.ok()) {
                    return found;
                }
            }
        }
        if (uses_codes) {
            state.calibrated = made.calibrated_by(head.tokens);
        }
        return made.code(layer, head.tokens); // those by other rules, and those of pages
    }
    /// Of a head; null: they are skipped.
    [[nodiscard]] static verdict read_codes(byte_reader& in, kv_export_head const& head,
                                            kv_layout const& l,
                                            std::vector<key_codes>* into) noexcept {
        static_assert(dlzs::centred_int4::key_step == granularity::per_channel &&
                      dlzs::centred_int4::centred_keys);
        auto const dim = static_cast<std::size_t>(l.qk_dim);
        auto const row = static_cast<std::size_t>(code_row(l.qk_dim));
        auto centre = in.take(dim * sizeof(float));
        auto steps = in.take(2 * dim * sizeof(float));
        auto const codes = in.take(static_cast<std::size_t>(head.tokens) * row);
        if (into == nullptr) {
            return {};
        }
        for (std::byte const b : codes) {
            auto const both = std::to_integer<unsigned>(b);
            if (both % 16 == 0 || both / 16 == 0) {
                return {status::foreign_data, "codes[]", static_cast<double>(both),
                        "two codes from 1 to 15"};
            }
        }
        dlzs::key_calibration<dlzs::centred_int4> by;
        bool are_numbers = true;
        auto const next = [&](std::span<std::byte const>& of, float least) {
            float x = 0;
            std::memcpy(&x, of.data(), sizeof x);
            of = of.subspan(sizeof x);
            are_numbers = are_numbers && std::isfinite(x) && x >= least;
            return x;
        };
        return guarded_and([&] {
            by.dim = l.qk_dim;
            for (std::size_t d = 0; d < dim; ++d) {
                by.centre.push_back(next(centre, -std::numeric_limits<float>::max()));
                float const step = next(steps, 0.0f);
                by.steps.push_back({step, next(steps, 0.0f)});
            }
            if (!are_numbers) {
                return verdict{status::foreign_data, "steps[]", 0,
                               "finite, as centre, and none negative"};
            }
            key_codes& made = into->emplace_back(std::move(by));
            made.reserve(2 * head.calibrated); // until all are coded anew
            for (std::size_t t = 0; t < static_cast<std::size_t>(head.tokens); ++t) {
                made.append_coded([&](index_t d) {
                    auto const at = static_cast<std::size_t>(d);
                    auto const both = std::to_integer<int>(codes[t * row + at / 2]);
                    return (at % 2 == 0 ? both % 16 : both / 16) - 8;
                });
            }
            return verdict{};
        });
    }
    template <class F>
    [[nodiscard]] static verdict guarded_and(F work) noexcept {
        verdict of_work;
        verdict const room = guarded([&] { of_work = work(); });
        return room.ok() ? of_work : room;
    }
    [[nodiscard]] static bool is_finite(T const* row, std::int64_t count) noexcept {
        for (std::int64_t d = 0; d < count; ++d) {
            if (!std::isfinite(to_float(row[d]))) {
                return false;
            }
        }
        return true;
    }
};

} // namespace detail

/// Of an export of the sequence as it is: 128 if it is empty; 0 if some of its tokens are not written in
/// every layer, which none has.
template <storage_element T>
[[nodiscard]] std::size_t export_bytes(kv_sequence<T> const& sequence) noexcept {
    using file = detail::kv_file<T>;
    return file::complete(sequence).ok() ? static_cast<std::size_t>(file::bytes(sequence)) : 0;
}

/// Writes a sequence: rows of all layers, codes, and the steps that they were made by (kv_export_head).
///
/// out    to  [export_bytes(sequence)]
/// error  mismatch where tokens are not written, or `to` has another size; then nothing is
template <storage_element T>
[[nodiscard]] verdict export_to(kv_sequence<T> const& sequence, std::span<std::byte> to) noexcept {
    using file = detail::kv_file<T>;
    verdict const whole = file::complete(sequence);
    if (!whole.ok()) {
        return whole;
    }
    if (to.size() != static_cast<std::size_t>(file::bytes(sequence))) {
        return {status::mismatch, "bytes", static_cast<double>(to.size()),
                "export_bytes(sequence)"};
    }
    file::write(sequence, to);
    return {};
}

/// Makes `into` the sequence that was exported; what it had is given back. Page size and number of pages may
/// differ from those of the exporter's pool. Codes are taken as they are, so that a cache is the same on
/// every target; where `coded_from` differs they are made anew from the keys. Codes for method::pages are no part of an export: they
/// are made from keys and values where the pool asks for them.
///
/// in     from  an export, at any address; trusted in nothing: checksums find accidents, and what was made
///              up can select bad keys, but no others than the sequence has
/// error  foreign_data: no export, of another format or byte order, cut off, or damaged; mismatch: of another
///        shape or type than the pool's; not_finite; no_free_page: the pool must hold both sequences for
///        a moment; out_of_memory. `into` is unchanged then
/// exact  attends and goes on as the exported one does, to the bit
/// paper  not in the paper
template <storage_element T>
[[nodiscard]] verdict import_from(std::span<std::byte const> from, kv_sequence<T>& into) noexcept {
    return detail::kv_file<T>::read(from, into);
}

} // namespace sofattn::engine
