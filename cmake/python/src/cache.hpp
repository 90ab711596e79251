// SPDX-License-Identifier: MIT
// Pools, sequences and prefill codes as objects of Python.
#pragma once

#include "arguments.hpp"
#include "arrays.hpp"
#include "call.hpp"
#include "errors.hpp"
#include <sofattn/sofattn.h>

#include <pybind11/pybind11.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

namespace sofattn::python {

struct destroy {
    void operator()(sofattn_pool* p) const noexcept { sofattn_pool_destroy(p); }
    void operator()(sofattn_sequence* s) const noexcept { sofattn_sequence_destroy(s); }
    void operator()(sofattn_prefill* p) const noexcept { sofattn_prefill_destroy(p); }
};

/// A lock is waited for without the GIL, always: whoever has it may be waiting for the GIL.
template <class Lock, class Mutex>
[[nodiscard]] Lock wait_for(Mutex& mutex) {
    py::gil_scoped_release const others_may_run;
    return Lock(mutex);
}

class pool {
public:
    explicit pool(sofattn_layout const& layout) : layout_(layout) {
        sofattn_pool* made = nullptr;
        require_ok(sofattn_pool_create(&layout, &made));
        handle_.reset(made);
    }

    [[nodiscard]] sofattn_layout const& layout() const noexcept { return layout_; }
    [[nodiscard]] sofattn_pool* handle() const noexcept { return handle_.get(); }

private:
    sofattn_layout layout_;
    std::unique_ptr<sofattn_pool, destroy> handle_;
};

/// Keeps its pool. Threads may call what they like: changes wait for each other and for readers.
class sequence {
public:
    explicit sequence(std::shared_ptr<pool> of)
        : pool_(std::move(of)), written_(static_cast<std::size_t>(pool_->layout().layers), 0) {
        sofattn_sequence* made = nullptr;
        require_ok(sofattn_sequence_create(pool_->handle(), &made));
        handle_.reset(made);
    }

    [[nodiscard]] std::shared_ptr<pool> const& of() const noexcept { return pool_; }
    [[nodiscard]] std::int64_t length() const {
        auto const lock = reading();
        return sofattn_sequence_length(handle_.get());
    }
    [[nodiscard]] std::int64_t code_bytes() const {
        auto const lock = reading();
        return sofattn_sequence_code_bytes(handle_.get());
    }
    [[nodiscard]] std::int64_t written(std::int64_t layer) const {
        require_layer(layer);
        auto const lock = reading();
        return written_[static_cast<std::size_t>(layer)];
    }

    void extend(std::int64_t tokens) {
        require_ok(changing([&] { return sofattn_sequence_extend(handle_.get(), tokens); }));
    }
    /// Keys and values of a layer's next tokens; where `extends`, room for them, too.
    void write(std::int64_t layer, rows const& k, rows const& v, bool extends) {
        sofattn_layout const& l = pool_->layout();
        require_layer(layer);
        std::int64_t const tokens = k.tokens();
        require_shape("k", k.array, {l.kv_heads, tokens, l.qk_dim},
                      "[kv_head, token, channel] of the pool");
        require_shape("v", v.array, {l.kv_heads, tokens, l.v_dim},
                      "[kv_head, token of k, channel] of the pool");
        require_ok(changing([&]() -> sofattn_verdict {
            std::int64_t& there = written_[static_cast<std::size_t>(layer)];
            std::int64_t const length = sofattn_sequence_length(handle_.get());
            if (extends && there + tokens > length) {
                sofattn_verdict const room =
                    sofattn_sequence_extend(handle_.get(), there + tokens - length);
                if (room.status != SOFATTN_OK) {
                    return room;
                }
            }
            sofattn_verdict const found =
                sofattn_sequence_write(handle_.get(), layer, tokens, &k.operand, &v.operand);
            if (found.status == SOFATTN_OK) {
                there += tokens;
            } else if (extends) {
                // Nothing was written beyond the old length, so nothing is coded anew.
                (void)sofattn_sequence_truncate(handle_.get(), length);
            }
            return found;
        }));
    }
    void truncate(std::int64_t tokens) {
        require_ok(changing([&] {
            sofattn_verdict const found = sofattn_sequence_truncate(handle_.get(), tokens);
            if (found.status == SOFATTN_OK) {
                for (std::int64_t& w : written_) {
                    w = std::min(w, tokens);
                }
            }
            return found;
        }));
    }
    [[nodiscard]] std::unique_ptr<sequence> fork() const {
        std::unique_ptr<sequence> twin;
        sofattn_sequence* made = nullptr;
        auto const lock = reading();
        sofattn_verdict found{};
        {
            py::gil_scoped_release const others_may_run;
            found = sofattn_sequence_fork(handle_.get(), &made);
        }
        require_ok(found);
        std::unique_ptr<sofattn_sequence, destroy> handle(made);
        twin.reset(new sequence(pool_, std::move(handle), written_));
        return twin;
    }
    /// Of a layer's keys, for method="best_keys"; until the sequence changes.
    [[nodiscard]] sofattn_codes const* codes(std::int64_t layer) const {
        sofattn_attention a;
        sofattn_attention_init(&a);
        require_ok(sofattn_sequence_describe(handle_.get(), layer, &a));
        return a.codes;
    }
    [[nodiscard]] py::object attend(std::int64_t layer, rows const& q, call& c) const {
        require_layer(layer);
        auto const lock = reading();
        describe(layer, q, c, "");
        return c.run();
    }
    /// One query array of each sequence; the results, in that order.
    [[nodiscard]] static py::list attend(std::vector<sequence const*> const& all,
                                         std::int64_t layer, std::vector<rows> const& queries,
                                         arguments const& from) {
        std::vector<sequence const*> each(all); // locked once, in an order that is everybody's
        std::ranges::sort(each, std::less<sequence const*>{});
        each.erase(std::unique(each.begin(), each.end()), each.end());
        std::vector<std::shared_lock<std::shared_mutex>> locks;
        locks.reserve(each.size());
        for (sequence const* s : each) {
            locks.push_back(s->reading());
        }
        std::vector<std::unique_ptr<call>> calls;
        for (std::size_t i = 0; i < all.size(); ++i) {
            std::string const where = "sequences[" + std::to_string(i) + "].";
            all[i]->require_layer(layer);
            calls.push_back(std::make_unique<call>(from, where));
            all[i]->describe(layer, queries[i], *calls.back(), where);
        }
        call::run(calls);
        py::list results;
        for (auto const& c : calls) {
            results.append(c->result());
        }
        return results;
    }
    /// The sequence as bytes.
    [[nodiscard]] py::bytes exported() const {
        auto const lock = reading();
        std::size_t const bytes = sofattn_sequence_export_bytes(handle_.get());
        if (bytes == 0) {
            refuse("written tokens", "less than the length",
                   "the sequence's length in every layer: write what it was extended by",
                   SOFATTN_MISMATCH);
        }
        auto result = py::reinterpret_steal<py::bytes>(
            PyBytes_FromStringAndSize(nullptr, static_cast<py::ssize_t>(bytes)));
        if (!result) {
            throw py::error_already_set();
        }
        sofattn_verdict found{};
        {
            py::gil_scoped_release const others_may_run;
            found = sofattn_sequence_export(handle_.get(), PyBytes_AS_STRING(result.ptr()), bytes);
        }
        require_ok(found);
        return result;
    }
    void import(void const* from, std::size_t bytes) {
        require_ok(changing([&] {
            sofattn_verdict const found = sofattn_sequence_import(handle_.get(), from, bytes);
            if (found.status == SOFATTN_OK) {
                written_.assign(written_.size(), sofattn_sequence_length(handle_.get()));
            }
            return found;
        }));
    }

private:
    sequence(std::shared_ptr<pool> of, std::unique_ptr<sofattn_sequence, destroy> handle,
             std::vector<std::int64_t> written)
        : pool_(std::move(of)), handle_(std::move(handle)), written_(std::move(written)) {}

    /// `where` precedes names in refusals.
    void describe(std::int64_t layer, rows const& q, call& c, std::string const& where) const {
        c.set_query(q);
        c.require_dim(pool_->layout().qk_dim);
        std::int64_t const dense_below = c.a.dense_below;
        require_ok(sofattn_sequence_describe(handle_.get(), layer, &c.a), where);
        if (is_coded_prefill(c.a.method)) { // not dense for want of codes that it has no use for
            c.a.dense_below = dense_below;
        }
    }
    void require_layer(std::int64_t layer) const {
        if (layer < 0 || layer >= pool_->layout().layers) {
            refuse("layer", std::to_string(layer), "from 0 to layers - 1");
        }
    }
    [[nodiscard]] std::shared_lock<std::shared_mutex> reading() const {
        return wait_for<std::shared_lock<std::shared_mutex>>(mutex_);
    }
    /// f() without the GIL, alone.
    template <class F>
    [[nodiscard]] sofattn_verdict changing(F f) {
        py::gil_scoped_release const others_may_run;
        std::unique_lock const lock(mutex_);
        return f();
    }

    std::shared_ptr<pool> pool_; ///< outlives the handle
    std::unique_ptr<sofattn_sequence, destroy> handle_;
    std::vector<std::int64_t>
        written_; ///< [layer] tokens; of a layer it is no more than the length
    mutable std::shared_mutex mutex_;
};

/// What sparse prefill knows of keys and values; holds both.
class prefill_codes {
public:
    /// For a method of prefill, and products if that is SOFATTN_PAGES.
    prefill_codes(rows k, rows v, std::int32_t method, std::int32_t products)
        : keys_(std::move(k)), values_(std::move(v)), method_(method), products_(products) {
        require_shape("v", values_.array, {keys_.heads(), keys_.tokens(), values_.dim()},
                      "[head of k, token of k, any number of channels]");
        // One query, and an output that is never written.
        static constexpr std::array<float, 256> no_query{}; // as long as the longest key
        sofattn_attention a;
        sofattn_attention_init(&a);
        float nowhere = 0;
        a.heads = a.kv_heads = keys_.heads();
        a.queries = 1;
        a.keys = keys_.tokens();
        a.qk_dim = keys_.dim();
        a.v_dim = values_.dim();
        a.query.data = no_query.data();
        a.query.type = SOFATTN_F32;
        a.key = keys_.operand;
        a.value = values_.operand;
        a.key_scales = keys_.scales;
        a.value_scales = values_.scales;
        a.output = &nowhere;
        a.method = method;
        a.products = products;
        constexpr std::int64_t row = 1 << 20; // more than any that the check lets pass
        a.output_head_stride = a.output_token_stride = row;
        sofattn_prefill* made = nullptr;
        sofattn_verdict found{};
        {
            py::gil_scoped_release const others_may_run;
            found = sofattn_prefill_create(&a, &made);
        }
        require_ok(found);
        handle_.reset(made);
    }

    /// Of keys, for method="budget".
    static void refuse_int8(rows const& k) {
        if (k.operand.type == SOFATTN_INT8) {
            refuse("k.dtype", "int8", "float32, float16 or bfloat16 with method=\"budget\"",
                   SOFATTN_UNSUPPORTED);
        }
    }

    [[nodiscard]] std::int64_t tokens() const { return keys_.tokens(); }
    [[nodiscard]] sofattn_prefill const* handle() const noexcept { return handle_.get(); }
    /// Codes of other keys would select at random.
    void require_of(rows const& k, rows const& v, sofattn_attention const& a) const {
        if (!same(k, keys_) || !same(v, values_)) {
            refuse("codes", "of other arrays", "made of these k and v", SOFATTN_MISMATCH);
        }
        if (a.method != method_) {
            refuse("codes", "for method=\"" + std::string(name_in(methods, method_)) + "\"",
                   "made for the method that attends", SOFATTN_MISMATCH);
        }
        if (method_ == SOFATTN_PAGES && a.products != products_) {
            refuse("codes",
                   "for products=\"" + std::string(name_in(all_products, products_)) + "\"",
                   "made for the products that attend", SOFATTN_MISMATCH);
        }
    }

private:
    [[nodiscard]] static bool same(rows const& a, rows const& b) {
        return a.operand.data == b.operand.data && a.operand.type == b.operand.type &&
               a.operand.head_stride == b.operand.head_stride &&
               a.operand.token_stride == b.operand.token_stride && a.scales.data == b.scales.data &&
               a.scales.head_stride == b.scales.head_stride &&
               a.scales.token_stride == b.scales.token_stride && a.heads() == b.heads() &&
               a.tokens() == b.tokens() && a.dim() == b.dim();
    }

    rows keys_;
    rows values_;
    std::int32_t method_;
    std::int32_t products_;
    std::unique_ptr<sofattn_prefill, destroy> handle_;
};

} // namespace sofattn::python
