// SPDX-License-Identifier: MIT
// Sums on their way out of an array: stepped cycle by cycle, and what the machine waits for.
#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/out_buffer.hpp>
#include <sofattn/hw/prediction_time.hpp>
#include <sofattn/hw/run.hpp>
#include <sofattn/hw/workload.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>

using namespace sofattn;

namespace {

std::uint64_t u(index_t n) { return static_cast<std::uint64_t>(n); }

struct stepped {
    index_t last_pass = 0;   ///< when the last pass is complete
    index_t next_begins = 0; ///< the first pass of another tile
    index_t last_byte = 0;   ///< out of the buffer
};

/// Registers, buffer and ports, a cycle at a time; the first pass takes `first` cycles.
stepped step(hw::out_buffer const& out, index_t passes, index_t first, index_t interval) {
    stepped result;
    index_t registers = 0;
    index_t buffer = 0;
    index_t made = 0;
    index_t progress = 0;
    auto const fill = [&] {
        index_t const moved = std::min(registers, out.capacity_bytes - buffer);
        registers -= moved;
        buffer += moved;
    };
    // One more pass than asked for, the next tile's; it leaves nothing.
    for (index_t now = 0;; ++now) {
        index_t const wanted = made == 0 ? first : interval;
        if (made <= passes && progress >= wanted && registers == 0) {
            ++made;
            if (made > passes) {
                result.next_begins = std::max(result.last_pass, now - interval);
            } else {
                result.last_pass = now;
                registers = out.pass_bytes;
                progress = 0;
                fill();
            }
        }
        if (made > passes && registers + buffer == 0) {
            return result;
        }
        index_t const leaving = std::min(out.port_bytes, buffer);
        buffer -= leaving;
        fill();
        ++progress;
        if (leaving > 0) {
            result.last_byte = now + 1;
        }
    }
}

} // namespace

TEST_CASE("hw.out_buffer: passes wait for registers, registers for room, room for ports") {
    SOFATTN_GENERATOR(random);
    int stretched = 0;
    for (int n = 0; n < 3000; ++n) {
        hw::out_buffer out;
        out.capacity_bytes = random.integer<index_t>(1, 60);
        out.port_bytes = random.integer<index_t>(1, 20);
        out.pass_bytes = random.integer<index_t>(1, 90);
        auto const passes = random.integer<index_t>(1, 9);
        auto const interval = random.integer<index_t>(1, 12);
        index_t const first = interval + random.integer<index_t>(0, 9);
        index_t const undisturbed = first + (passes - 1) * interval;
        hw::stage_time const alone{u(undisturbed), u(undisturbed)};
        auto const time = out.time(alone, passes, interval, 1000);
        stepped const expected = step(out, passes, first, interval);
        CAPTURE(n);
        CAPTURE(out.capacity_bytes);
        CAPTURE(out.port_bytes);
        CAPTURE(out.pass_bytes);
        CAPTURE(passes);
        CAPTURE(interval);
        CHECK(time.interval_cycles == u(expected.next_begins));
        CHECK(time.latency_cycles == u(expected.last_byte));
        stretched += time.interval_cycles > alone.interval_cycles ? 1 : 0;
        // Ports that keep up with the rows, and none told of: not felt.
        CHECK(out.time(alone, passes, interval, out.port_bytes) == alone);
        out.port_bytes = 0;
        CHECK(out.time(alone, passes, interval, 1000) == alone);
    }
    CHECK(stretched > 500);
}

TEST_CASE("hw.prediction_time: the shift array's 4 KB, half of a pass of 16-bit sums") {
    hw::prediction_engine const e;
    hw::tile_work w;
    w.rows = w.keys = w.dim = 128;
    auto const free = hw::prediction_time(e, w);
    CHECK(free.interval_cycles == 4 * 128);
    // 256 bytes are a sum of every row.
    CHECK(hw::prediction_time(e, w, {0, 256}) == free);
    // 64 bytes per cycle carry a pass of 8 KB in its 128 cycles: only later.
    auto const just = hw::prediction_time(e, w, {0, 64});
    CHECK(just.interval_cycles == free.interval_cycles);
    CHECK(just.latency_cycles == free.latency_cycles + 128);
    // 32 do not: 28 KB through the port, and the buffer's 4 KB, after the first pass.
    auto const slow = hw::prediction_time(e, w, {0, 32});
    CHECK(slow.interval_cycles == 128 + (4 * 8192 - 4096) / 32 - 128);
    CHECK(slow.latency_cycles > just.latency_cycles);
    // A larger buffer hides a part, and never more than there is.
    hw::prediction_engine large = e;
    large.out_buffer_bytes = 16 * 1024;
    CHECK(hw::prediction_time(large, w, {0, 32}).interval_cycles < slow.interval_cycles);
    large.out_buffer_bytes = 1 << 20;
    CHECK(hw::prediction_time(large, w, {0, 32}).interval_cycles == free.interval_cycles);
}

TEST_CASE("hw.run: sums of scores and of K^ wait for the memory that they go to") {
    hw::workload w;
    w.keys_count = w.queries_count = 1024;
    auto const busy = [&](hw::machine const& m) {
        return hw::run(w, m)
            .timing.engines[static_cast<std::size_t>(hw::tile_stage::prediction)]
            .busy;
    };
    hw::machine m;
    cycles const served = busy(m);
    m.buffers.temporary.ports_count = 1;
    CHECK(busy(m) > served);
    m = {};
    m.prediction.result_bytes = 8;
    m.buffers.token.ports_count = 1;
    w.width_count = 128; // K^ is soon ready
    cycles const narrow = busy(m);
    m.buffers.token.ports_count = 64;
    CHECK(narrow > busy(m));
}
