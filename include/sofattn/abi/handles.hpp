// SPDX-License-Identifier: MIT
// What the opaque types of the C interface are: pools and sequences of any storage type.
#pragma once

#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/scaled_view.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/kv_export.hpp>
#include <sofattn/engine/kv_pool.hpp>
#include <sofattn/engine/kv_sequence.hpp>
#include <sofattn/engine/page_codes.hpp>
#include <sofattn/engine/verdict.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <vector>

namespace sofattn::abi {

/// A sequence of any storage type.
class any_sequence {
public:
    any_sequence() = default;
    any_sequence(any_sequence const&) = delete;
    any_sequence& operator=(any_sequence const&) = delete;
    virtual ~any_sequence() = default;

    [[nodiscard]] virtual std::int64_t length() const noexcept = 0;
    [[nodiscard]] virtual std::int64_t code_bytes() const noexcept = 0;
    [[nodiscard]] virtual engine::verdict extend(std::int64_t tokens) noexcept = 0;
    [[nodiscard]] virtual engine::verdict write(std::int64_t layer, std::int64_t tokens,
                                                engine::operand const& key,
                                                engine::operand const& value) noexcept = 0;
    [[nodiscard]] virtual engine::verdict truncate(std::int64_t tokens) noexcept = 0;
    /// Null without memory.
    [[nodiscard]] virtual any_sequence* empty() const noexcept = 0;
    /// `into` is of the same pool.
    [[nodiscard]] virtual engine::verdict fork(any_sequence& into) const noexcept = 0;
    [[nodiscard]] virtual std::size_t export_bytes() const noexcept = 0;
    [[nodiscard]] virtual engine::verdict export_to(std::span<std::byte> to) const noexcept = 0;
    [[nodiscard]] virtual engine::verdict import_from(std::span<std::byte const> from) noexcept = 0;
    [[nodiscard]] virtual engine::verdict describe(std::int64_t layer,
                                                   engine::attention_desc& d) const noexcept = 0;
};

/// A pool of any storage type.
class any_pool {
public:
    any_pool() = default;
    any_pool(any_pool const&) = delete;
    any_pool& operator=(any_pool const&) = delete;
    virtual ~any_pool() = default;

    [[nodiscard]] virtual engine::verdict open(engine::kv_layout const& layout) noexcept = 0;
    [[nodiscard]] virtual std::int64_t free_pages() const noexcept = 0;
    [[nodiscard]] virtual std::int64_t bytes_per_token() const noexcept = 0;
    /// Null without memory.
    [[nodiscard]] virtual any_sequence* sequence() noexcept = 0;
};

template <storage_element T>
class typed_sequence final : public any_sequence {
public:
    explicit typed_sequence(engine::kv_pool<T>& pool) noexcept : cache_(pool) {}

    [[nodiscard]] std::int64_t length() const noexcept override { return cache_.length(); }
    [[nodiscard]] std::int64_t code_bytes() const noexcept override { return cache_.code_bytes(); }
    [[nodiscard]] engine::verdict extend(std::int64_t tokens) noexcept override {
        return cache_.extend(tokens);
    }
    [[nodiscard]] engine::verdict write(std::int64_t layer, std::int64_t tokens,
                                        engine::operand const& key,
                                        engine::operand const& value) noexcept override {
        return cache_.write(layer, tokens, key, value);
    }
    [[nodiscard]] engine::verdict truncate(std::int64_t tokens) noexcept override {
        return cache_.truncate(tokens);
    }
    [[nodiscard]] any_sequence* empty() const noexcept override {
        return new (std::nothrow) typed_sequence(cache_.pool());
    }
    [[nodiscard]] engine::verdict fork(any_sequence& into) const noexcept override {
        return cache_.fork(static_cast<typed_sequence&>(into).cache_);
    }
    [[nodiscard]] std::size_t export_bytes() const noexcept override {
        return engine::export_bytes(cache_);
    }
    [[nodiscard]] engine::verdict export_to(std::span<std::byte> to) const noexcept override {
        return engine::export_to(cache_, to);
    }
    [[nodiscard]] engine::verdict import_from(std::span<std::byte const> from) noexcept override {
        return engine::import_from(from, cache_);
    }
    [[nodiscard]] engine::verdict describe(std::int64_t layer,
                                           engine::attention_desc& d) const noexcept override {
        return cache_.describe(layer, d);
    }

private:
    engine::kv_sequence<T> cache_;
};

template <storage_element T>
class typed_pool final : public any_pool {
public:
    [[nodiscard]] engine::verdict open(engine::kv_layout const& layout) noexcept override {
        return pool_.open(layout);
    }
    [[nodiscard]] std::int64_t free_pages() const noexcept override { return pool_.free_pages(); }
    [[nodiscard]] std::int64_t bytes_per_token() const noexcept override {
        return pool_.bytes_per_token();
    }
    [[nodiscard]] any_sequence* sequence() noexcept override {
        return new (std::nothrow) typed_sequence<T>(pool_);
    }

private:
    engine::kv_pool<T> pool_;
};

/// Null without memory.
[[nodiscard]] inline any_pool* pool_of(engine::dtype type) noexcept {
    switch (type) {
    case engine::dtype::f32: return new (std::nothrow) typed_pool<float>;
    case engine::dtype::f16: return new (std::nothrow) typed_pool<half>;
    case engine::dtype::bf16: return new (std::nothrow) typed_pool<bfloat16>;
    case engine::dtype::int8: return new (std::nothrow) typed_pool<std::int8_t>;
    }
    return nullptr;
}

} // namespace sofattn::abi

struct sofattn_pool {
    std::unique_ptr<sofattn::abi::any_pool> is;
};
struct sofattn_sequence {
    std::unique_ptr<sofattn::abi::any_sequence> is;
};
struct sofattn_prefill {
    std::vector<sofattn::engine::prefill_codes> codes{}; ///< [kv_head], for method::budget
    sofattn::engine::page_codes pages{};                 ///< or for method::pages

    [[nodiscard]] bool is_of_pages() const noexcept { return codes.empty(); }
};
