// SPDX-License-Identifier: MIT
// Several descriptors at once: sequences of different lengths, whose work all threads share.
#pragma once

#include <sofattn/attention/decode.hpp>
#include <sofattn/attention/problem.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/share.hpp>
#include <sofattn/engine/verdict.hpp>
#include <sofattn/exec/parallel.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <new>
#include <span>
#include <type_traits>

namespace sofattn::engine {

/// A verdict, and of which sequence.
struct [[nodiscard]] batch_verdict {
    verdict found{};
    std::int64_t sequence = -1; ///< number of the descriptor that it is about; -1: of the batch

    [[nodiscard]] constexpr bool ok() const noexcept { return found.ok(); }
};

namespace detail {

inline constexpr std::int64_t most_sequences = 65536;

/// One descriptor of a plan, and where its share of the workspace is.
struct batch_job {
    attention_desc desc;
    std::int64_t number;     ///< of the descriptor in the batch
    std::int64_t units;      ///< pieces of work that may be done in any order
    std::int64_t first_unit; ///< of the batch
    std::int64_t chunks;     ///< of keys, where a KV head's are split; else 0
    std::int64_t states_at;  ///< bytes; of the chunks' results
    std::int64_t done_at;    ///< bytes; chunks that are done, [kv_head]
};
static_assert(std::is_trivially_copyable_v<batch_job>);

/// Start of a planned workspace.
struct batch_head {
    std::uint64_t mark;
    std::int64_t sequences;
    std::int64_t units;
    std::int64_t threads;
    std::int64_t slices_at;         ///< bytes; scratch of each thread
    std::int64_t slice;             ///< bytes
    std::int64_t bytes;             ///< of all
    std::atomic<std::int64_t> next; ///< unit that nobody has taken
};
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

inline constexpr std::uint64_t batch_mark = 0x736f6661'74746e42; // "sofattnB"

[[nodiscard]] constexpr std::int64_t in_cache_lines(std::int64_t bytes) noexcept {
    constexpr std::int64_t line = 64;
    return (bytes + line - 1) / line * line;
}

/// Dense decode, whose chunks of keys are merged when all are done.
[[nodiscard]] inline bool is_split(attention_desc const& d) noexcept {
    return d.how != method::listed && is_dense(d) && decodes(d);
}

/// Where a plan puts things, found sequence by sequence.
class batch_layout {
public:
    explicit batch_layout(std::int64_t sequences) noexcept
        : end_(in_cache_lines(sizeof(batch_head)) +
               in_cache_lines(sequences * static_cast<std::int64_t>(sizeof(batch_job)))) {}

    /// Places job.chunks, states_at and done_at, given job.desc, which has passed `check`.
    void add(batch_job& job) noexcept {
        attention_desc const& d = job.desc;
        (void)with_types(d, [&](auto const& given) -> verdict {
            problem_shape const shape = given.extents();
            job.chunks = 0;
            if (is_split(d)) {
                auto const memory = sofattn::detail::decode_layout::of(shape, parts_of(d));
                auto const bytes = static_cast<std::int64_t>(sizeof(float));
                job.chunks = sofattn::detail::key_split::of(shape, parts_of(d)).chunks;
                job.done_at = end_;
                end_ += in_cache_lines(
                    d.kv_heads * static_cast<std::int64_t>(sizeof(std::atomic<std::int32_t>)));
                job.states_at = end_;
                end_ += in_cache_lines(memory.states * bytes);
                slice_ = std::max(slice_, in_cache_lines(memory.scratch * bytes));
            } else {
                slice_ = std::max(
                    slice_, in_cache_lines(static_cast<std::int64_t>(bytes_for(given, d, 1))));
            }
            return {};
        });
    }
    [[nodiscard]] std::int64_t slices_at() const noexcept { return end_; }
    [[nodiscard]] std::int64_t slice() const noexcept { return slice_; }
    /// From a cache line on.
    [[nodiscard]] std::int64_t bytes(std::int64_t threads) const noexcept {
        return end_ + threads * slice_;
    }

private:
    std::int64_t end_;
    std::int64_t slice_ = 0;
};

/// A workspace that is planned, or will be. Nothing is there before `plan`.
class batch_memory {
public:
    explicit batch_memory(std::byte* aligned) noexcept : at_(aligned) {}

    [[nodiscard]] batch_head& head() const noexcept {
        return *std::launder(reinterpret_cast<batch_head*>(at_));
    }
    [[nodiscard]] std::span<batch_job> jobs() const noexcept {
        return {
            std::launder(reinterpret_cast<batch_job*>(at_ + in_cache_lines(sizeof(batch_head)))),
            static_cast<std::size_t>(head().sequences)};
    }
    void begin(std::int64_t sequences) const noexcept {
        auto* const h = new (at_) batch_head{};
        h->sequences = sequences;
    }
    void put(std::int64_t at, batch_job const& job) const noexcept {
        new (at_ + in_cache_lines(sizeof(batch_head)) +
             at * static_cast<std::int64_t>(sizeof(batch_job))) batch_job(job);
    }
    void clear_done(batch_job const& job) const noexcept {
        for (std::int64_t h = 0; job.chunks > 0 && h < job.desc.kv_heads; ++h) {
            new (at_ + job.done_at + h * static_cast<std::int64_t>(sizeof(std::int32_t)))
                std::atomic<std::int32_t>(0);
        }
    }
    [[nodiscard]] std::span<std::byte> slice(std::int64_t thread) const noexcept {
        return {at_ + head().slices_at + thread * head().slice,
                static_cast<std::size_t>(head().slice)};
    }

    void run_unit(std::int64_t unit, std::int64_t thread) const noexcept {
        auto const all = jobs();
        auto const after = std::ranges::upper_bound(all, unit, {}, &batch_job::first_unit);
        batch_job const& job = *std::prev(after);
        std::int64_t const mine = unit - job.first_unit;
        (void)with_types(job.desc, [&](auto const& given) -> verdict {
            if (mine == 0) {
                list_all_seen(given, job.desc, share::of(0, 1));
            }
            if (job.chunks == 0) {
                perform(given, job.desc, slice(thread), share::of_one(mine));
                return {};
            }
            sofattn::detail::decode_run const work(given, output_of(job.desc), sums_of(job.desc),
                                                   reinterpret_cast<float*>(at_ + job.states_at),
                                                   reinterpret_cast<float*>(slice(thread).data()),
                                                   parts_of(job.desc));
            std::int64_t const kv = mine / job.chunks;
            work.attend(kv, mine % job.chunks, 0);
            auto& done =
                std::launder(reinterpret_cast<std::atomic<std::int32_t>*>(at_ + job.done_at))[kv];
            // Whoever is last sees what all have left, and merges it in the order of keys.
            if (done.fetch_add(1, std::memory_order_acq_rel) + 1 == job.chunks) {
                work.merge(kv);
            }
            return {};
        });
    }

private:
    std::byte* at_;
};

[[nodiscard]] inline std::byte* aligned_start(void* workspace, std::size_t& bytes) noexcept {
    return static_cast<std::byte*>(std::align(64, 1, workspace, bytes));
}

/// at(i) is descriptor i.
template <class At>
[[nodiscard]] batch_verdict check_all(std::int64_t count, At at) noexcept {
    checker c;
    c.in_range("sequences", count, 1, most_sequences, "from 1 to 65536");
    if (!c.ok()) {
        return {c.found(), -1};
    }
    for (std::int64_t i = 0; i < count; ++i) {
        verdict const found = check(at(i));
        if (!found.ok()) {
            return {found, i};
        }
    }
    return {};
}

/// Of descriptors that have passed.
template <class At>
[[nodiscard]] std::size_t batch_bytes(std::int64_t count, At at, std::int64_t threads) noexcept {
    batch_layout layout(count);
    for (std::int64_t i = 0; i < count; ++i) {
        batch_job job{};
        job.desc = at(i);
        layout.add(job);
    }
    return static_cast<std::size_t>(layout.bytes(threads)) + 64; // the start may lie anywhere
}

/// Two sequences that write to one place.
[[nodiscard]] inline batch_verdict find_same_output(std::span<batch_job> jobs) noexcept {
    std::ranges::sort(jobs, [](batch_job const& a, batch_job const& b) {
        auto const* const first = a.desc.output.data;
        auto const* const second = b.desc.output.data;
        return first != second ? std::less<void const*>{}(first, second) : a.number < b.number;
    });
    auto const same =
        std::ranges::adjacent_find(jobs, {}, [](batch_job const& j) { return j.desc.output.data; });
    if (same == jobs.end()) {
        return {};
    }
    return {{status::overlapping, "output.data", static_cast<double>(same->number),
             "memory of its own, but is that of the sequence with this number"},
            std::next(same)->number};
}

template <class At>
[[nodiscard]] batch_verdict plan(std::int64_t count, At at, void* workspace, std::size_t bytes,
                                 std::int64_t threads) noexcept {
    std::size_t space = bytes;
    std::byte* const start = workspace == nullptr ? nullptr : aligned_start(workspace, space);
    batch_memory const memory(start);
    if (start != nullptr && space >= sizeof(batch_head)) {
        memory.begin(0); // an earlier plan is none any more
    }
    checker c;
    c.in_range("threads", threads, 1, most_tokens, "at least 1");
    if (!c.ok()) {
        return {c.found(), -1};
    }
    batch_verdict const good = check_all(count, at);
    if (!good.ok()) {
        return good;
    }
    if (workspace == nullptr) {
        return {{status::null_pointer, "workspace", 0, "memory of batch_workspace_bytes bytes"},
                -1};
    }
    if (bytes < batch_bytes(count, at, threads)) {
        return {{status::workspace_too_small, "workspace bytes", static_cast<double>(bytes),
                 "at least batch_workspace_bytes(descriptors, threads)"},
                -1};
    }
    memory.begin(count); // unmarked: nobody takes it for a plan yet
    batch_layout layout(count);
    for (std::int64_t i = 0; i < count; ++i) {
        batch_job job{};
        job.desc = at(i);
        job.number = i;
        layout.add(job);
        memory.put(i, job);
        memory.clear_done(job);
    }
    batch_head& head = memory.head();
    head.slices_at = layout.slices_at();
    head.slice = layout.slice();
    head.bytes = layout.bytes(threads);
    head.threads = threads;
    std::span<batch_job> const jobs = memory.jobs();
    for (batch_job& job : jobs) {
        verdict const found = with_types(job.desc, [&](auto const& given) -> verdict {
            if (job.chunks > 0) {
                job.units = job.chunks * job.desc.kv_heads;
            } else {
                perform(given, job.desc, memory.slice(0), share::counting(job.units));
            }
            return check_finite(given, job.desc);
        });
        if (!found.ok()) {
            return {found, job.number};
        }
    }
    batch_verdict const apart = find_same_output(jobs);
    if (!apart.ok()) {
        return apart;
    }
    // Long units first, so that threads end together.
    auto const length = [](batch_job const& j) {
        return static_cast<double>(j.desc.heads) * static_cast<double>(j.desc.queries) *
               static_cast<double>(j.desc.keys) / static_cast<double>(j.units);
    };
    std::ranges::sort(jobs, [&](batch_job const& a, batch_job const& b) {
        return length(a) != length(b) ? length(a) > length(b) : a.number < b.number;
    });
    for (batch_job& job : jobs) {
        job.first_unit = head.units;
        head.units += job.units;
    }
    head.mark = batch_mark;
    return {};
}

[[nodiscard]] inline auto elements_of(std::span<attention_desc const> all) noexcept {
    return
        [all](std::int64_t i) -> attention_desc const& { return all[static_cast<std::size_t>(i)]; };
}

} // namespace detail

/// Each by itself, as `check` does: ok, or the first that is not.
[[nodiscard]] inline batch_verdict check_batch(std::span<attention_desc const> all) noexcept {
    return detail::check_all(std::ssize(all), detail::elements_of(all));
}

/// Bytes of workspace for so many threads; 0 where `check_batch` finds a fault or threads is not positive.
/// Beside some 512 bytes per sequence: what a thread needs for the largest of them, and for dense decode
/// at most 2 MiB per sequence (decode_workspace_bytes).
[[nodiscard]] inline std::size_t batch_workspace_bytes(std::span<attention_desc const> all,
                                                       std::int64_t threads) noexcept {
    return threads > 0 && check_batch(all).ok()
               ? detail::batch_bytes(std::ssize(all), detail::elements_of(all), threads)
               : 0;
}

/// Checks a batch and cuts it into units of work: of a sequence, a KV head, and a part of its keys (dense
/// decode) or some of its queries. Descriptors are copied into the workspace; what they point to must
/// stay. One thread calls this; then others may `run_batch(workspace, bytes, ith)`.
///
/// in     all        descriptors of any shapes, masks and methods
///        workspace  batch_workspace_bytes(all, threads) bytes or more, at any address
///        threads    that may run it at a time
/// pre    outputs lie apart; that two have one address is found
/// error  the sequence that is wrong, and how; then there is no plan. Finite checks are made here, by one
///        thread
[[nodiscard]] inline batch_verdict plan_batch(std::span<attention_desc const> all, void* workspace,
                                              std::size_t bytes, std::int64_t threads) noexcept {
    return detail::plan(std::ssize(all), detail::elements_of(all), workspace, bytes, threads);
}

/// Takes units of a planned batch until none is left. Any of the threads that it was planned for may call
/// this, at once, each with an `ith` of its own; nobody waits for anybody. The batch is complete when all
/// who called have returned, at least one. A plan is carried out once.
///
/// in     workspace  as given to plan_batch, which was ok
///        ith        from 0 to threads - 1
/// error  names what is wrong of these; neither throws nor allocates
/// exact  each sequence has the bits of `run` alone, whoever runs what: the merge of its parts is in the
///        order of its keys
/// paper  not in the paper
[[nodiscard]] inline verdict run_batch(void* workspace, std::size_t bytes,
                                       std::int64_t ith) noexcept {
    if (workspace == nullptr) {
        return {status::null_pointer, "workspace", 0, "what plan_batch was given"};
    }
    std::size_t space = bytes;
    std::byte* const start = detail::aligned_start(workspace, space);
    if (start == nullptr || space < sizeof(detail::batch_head)) {
        return {status::workspace_too_small, "workspace bytes", static_cast<double>(bytes),
                "as many as plan_batch was given"};
    }
    detail::batch_memory const memory(start);
    detail::batch_head& head = memory.head();
    if (head.mark != detail::batch_mark) {
        return {status::mismatch, "workspace", 0, "planned by plan_batch"};
    }
    if (space < static_cast<std::size_t>(head.bytes)) {
        return {status::workspace_too_small, "workspace bytes", static_cast<double>(bytes),
                "as many as plan_batch was given"};
    }
    if (ith < 0 || ith >= head.threads) {
        return {status::out_of_range, "ith", static_cast<double>(ith),
                "from 0 to the planned threads - 1"};
    }
    while (true) {
        std::int64_t const unit = head.next.fetch_add(1, std::memory_order_relaxed);
        if (unit >= head.units) {
            return {};
        }
        memory.run_unit(unit, ith);
    }
}

namespace detail {

template <class At, exec::parallel_for Run>
[[nodiscard]] batch_verdict run_all(std::int64_t count, At at, void* workspace, std::size_t bytes,
                                    Run const& run) noexcept {
    batch_verdict const planned = plan(count, at, workspace, bytes, run.threads());
    if (planned.ok()) {
        batch_memory const memory(aligned_start(workspace, bytes));
        run(memory.head().units,
            [&](index_t unit, index_t thread) { memory.run_unit(unit, thread); });
    }
    return planned;
}

} // namespace detail

/// Both at once, by a caller's parallel loop.
template <exec::parallel_for Run>
[[nodiscard]] batch_verdict run_batch(std::span<attention_desc const> all, void* workspace,
                                      std::size_t bytes, Run const& run) noexcept {
    return detail::run_all(std::ssize(all), detail::elements_of(all), workspace, bytes, run);
}

} // namespace sofattn::engine
