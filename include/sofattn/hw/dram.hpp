// SPDX-License-Identifier: MIT
// DRAM, request by request: banks, rows, buses and refresh.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/units.hpp>
#include <sofattn/hw/dram_energy.hpp>
#include <sofattn/hw/dram_parameters.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>
#include <vector>

namespace sofattn::hw {

enum class memory_access { read, write };

/// Bytes [address, address + bytes) of memory; cycles are DRAM cycles.
struct memory_request {
    std::uint64_t address = 0;
    std::uint64_t bytes = 0;
    memory_access kind = memory_access::read;
    std::uint64_t arrival_cycle = 0;

    friend bool operator==(memory_request const&, memory_request const&) = default;
};

/// Calls f(address) for every burst that the request touches.
template <std::invocable<std::uint64_t> F>
void for_each_burst(memory_request const& request, std::uint64_t burst_bytes, F f) {
    if (request.bytes == 0) {
        return;
    }
    std::uint64_t const end = request.address + request.bytes;
    for (std::uint64_t at = request.address / burst_bytes * burst_bytes; at < end;
         at += burst_bytes) {
        f(at);
    }
}

/// What a controller tells a device; a refresh is preceded by the precharge of all banks.
enum class dram_command_kind { activate, precharge, read, write, refresh };
struct dram_command {
    dram_command_kind kind = dram_command_kind::activate;
    std::uint64_t cycle = 0;
    dram_address at{}; ///< bus and rank only, for a refresh

    friend bool operator==(dram_command const&, dram_command const&) = default;
};

/// Open rows stay open until another row of the bank is wanted or the rank is refreshed. Each bus
/// serves its bursts in the order of their arrival and looks `queue_bursts` ahead: rows of later
/// bursts are opened while earlier ones transfer. All timing parameters of `dram_parameters` hold
/// between the commands of a rank, in the simplest way that they can: commands of a kind are in
/// order. Ranks of a bus are refreshed in turn, each every refi_cycles, as soon as its banks can be
/// closed. Left out: reordering of requests, the command bus, power-down.
/// Not in the paper, which gives a bandwidth and a power.
class dram {
public:
    /// Throws `error` for parameters of no DRAM.
    explicit dram(dram_parameters parameters)
        : parameters_(std::move(parameters)), mapping_((parameters_.validate(), parameters_)),
          buses_(parameters_.buses()) {
        for (bus_state& bus : buses_) {
            bus.done.resize(parameters_.queue_bursts);
            bus.ranks.resize(parameters_.ranks);
            for (std::size_t r = 0; r < bus.ranks.size(); ++r) {
                bus.ranks[r].banks.resize(parameters_.banks());
                bus.ranks[r].groups.resize(parameters_.bank_groups);
                bus.ranks[r].next_refresh = parameters_.refi_cycles * (r + 1) / bus.ranks.size();
            }
        }
    }

    [[nodiscard]] dram_parameters const& parameters() const noexcept { return parameters_; }
    [[nodiscard]] dram_mapping const& mapping() const noexcept { return mapping_; }

    /// Every command from now on, grouped by request, not by cycle.
    void listen(std::function<void(dram_command const&)> to) { listener_ = std::move(to); }

    /// The cycle in which the last of the request's bytes has been transferred. Requests arrive in
    /// order (SOFATTN_ASSERT); one of no bytes is complete when it arrives.
    std::uint64_t operator()(memory_request const& request) {
        SOFATTN_ASSERT(request.arrival_cycle >= last_arrival_);
        last_arrival_ = request.arrival_cycle;
        std::uint64_t complete = request.arrival_cycle;
        for_each_burst(request, parameters_.burst_bytes, [&](std::uint64_t at) {
            complete =
                std::max(complete, transfer(mapping_(at), request.kind, request.arrival_cycle));
        });
        last_complete_ = std::max(last_complete_, complete);
        return complete;
    }

    /// When the last request so far is complete.
    [[nodiscard]] std::uint64_t last_complete() const noexcept { return last_complete_; }

    /// What was done in cycles [0, until), at least until the last request is complete, refreshes
    /// that fall due included.
    [[nodiscard]] dram_counts counts(std::uint64_t until = 0) const {
        std::uint64_t const end = std::max(last_complete_, until);
        dram_counts sum = counts_;
        sum.elapsed = cycles(end);
        for (bus_state const& bus : buses_) {
            for (rank_state rank : bus.ranks) { // a copy: asking changes nothing
                while (rank.next_refresh <= end) {
                    refresh(rank, sum, end);
                }
                sum.open += cycles(rank.is_open ? end - std::min(end, rank.open_since) : 0);
            }
        }
        return sum;
    }

private:
    static constexpr std::uint64_t unlimited = ~std::uint64_t{0};

    struct bank_state {
        std::optional<std::uint64_t> row{};
        std::uint64_t may_activate = 0;
        std::uint64_t may_precharge = 0;
        std::uint64_t may_read = 0; ///< row to column delay
        std::uint64_t may_write = 0;
    };
    /// Cycles, plus 1 where something happened at all.
    struct last_times {
        std::uint64_t activation = 0;
        std::uint64_t column = 0;
        std::uint64_t write_end = 0; ///< of the data
    };
    struct rank_state {
        std::vector<bank_state> banks{};
        std::vector<last_times> groups{};
        last_times last{};                          ///< in any group
        std::array<std::uint64_t, 4> activations{}; ///< the last four plus 1, a ring
        std::size_t oldest = 0;
        std::uint64_t next_refresh = 0;
        bool is_open = false;
        std::uint64_t open_since = 0;
    };
    struct bus_state {
        std::vector<rank_state> ranks{};
        std::vector<std::uint64_t> done{}; ///< when the last bursts were transferred, a ring
        std::size_t oldest = 0;
        bool used = false;
        std::uint64_t last_column = 0; ///< command
        memory_access last_kind = memory_access::read;
        std::size_t last_rank = 0;
    };

    /// The earliest cycle that is `gap` after a time that may not have been.
    [[nodiscard]] static std::uint64_t after(std::uint64_t time, std::uint64_t gap) noexcept {
        return time > 0 ? time - 1 + gap : 0;
    }

    /// One burst: when its data has passed.
    std::uint64_t transfer(dram_address const& at, memory_access kind, std::uint64_t arrival) {
        dram_parameters const& p = parameters_;
        bus_state& bus = buses_[at.bus];
        rank_state& rank = bus.ranks[at.rank];
        bank_state& bank = rank.banks[at.group * p.banks_per_group + at.bank];
        std::uint64_t const seen = std::max(arrival, bus.done[bus.oldest]);
        while (rank.next_refresh <= std::max(seen, bus.last_column)) {
            std::uint64_t const when = refresh(rank, counts_, unlimited);
            tell(dram_command_kind::refresh, when, {.bus = at.bus, .rank = at.rank});
        }

        if (bank.row == at.row) {
            ++counts_.row_hits;
        } else {
            std::uint64_t open = seen;
            if (bank.row) {
                ++counts_.row_conflicts;
                open = std::max(open, bank.may_precharge);
                dram_address closed = at;
                closed.row = *bank.row;
                tell(dram_command_kind::precharge, open, closed);
                open += p.rp_cycles;
            } else {
                ++counts_.row_misses;
            }
            activate(rank, bank, at, open);
        }

        bool const reads = kind == memory_access::read;
        last_times& group = rank.groups[at.group];
        std::uint64_t const column = std::max(
            {seen, reads ? bank.may_read : bank.may_write, after_last_column(bus, at, kind),
             after(group.column, p.ccd_l_cycles), after(rank.last.column, p.ccd_s_cycles),
             reads ? after(group.write_end, p.wtr_l_cycles) : 0,
             reads ? after(rank.last.write_end, p.wtr_s_cycles) : 0});
        std::uint64_t const data_end =
            column + (reads ? p.cl_cycles : p.cwl_cycles) + p.burst_cycles;
        bank.may_precharge =
            std::max(bank.may_precharge, reads ? column + p.rtp_cycles : data_end + p.wr_cycles);
        group.column = rank.last.column = column + 1;
        if (!reads) {
            group.write_end = rank.last.write_end = data_end + 1;
        }
        tell(reads ? dram_command_kind::read : dram_command_kind::write, column, at);
        ++(reads ? counts_.read_bursts : counts_.write_bursts);
        bus.used = true;
        bus.last_column = column;
        bus.last_kind = kind;
        bus.last_rank = at.rank;
        bus.done[bus.oldest] = data_end;
        bus.oldest = (bus.oldest + 1) % bus.done.size();
        return data_end;
    }

    void activate(rank_state& rank, bank_state& bank, dram_address const& at,
                  std::uint64_t earliest) {
        dram_parameters const& p = parameters_;
        last_times& group = rank.groups[at.group];
        std::uint64_t const when =
            std::max({earliest, bank.may_activate, after(group.activation, p.rrd_l_cycles),
                      after(rank.last.activation, p.rrd_s_cycles),
                      after(rank.activations[rank.oldest], p.faw_cycles)});
        group.activation = rank.last.activation = rank.activations[rank.oldest] = when + 1;
        rank.oldest = (rank.oldest + 1) % rank.activations.size();
        if (!rank.is_open) {
            rank.is_open = true;
            rank.open_since = when;
        }
        tell(dram_command_kind::activate, when, at);
        bank = {.row = at.row,
                .may_activate = when + p.rc_cycles(),
                .may_precharge = when + p.ras_cycles,
                .may_read = when + p.rcd_read_cycles,
                .may_write = when + p.rcd_write_cycles};
    }

    /// Earliest column command after the one before on the same bus.
    [[nodiscard]] std::uint64_t after_last_column(bus_state const& bus, dram_address const& at,
                                                  memory_access kind) const noexcept {
        dram_parameters const& p = parameters_;
        if (!bus.used) {
            return 0;
        }
        std::uint64_t next = bus.last_column + p.burst_cycles;
        if (bus.last_kind != kind || bus.last_rank != at.rank) {
            // The bus turns around: a cycle between the data of the two.
            auto const delay = [&](memory_access of) {
                return of == memory_access::read ? p.cl_cycles : p.cwl_cycles;
            };
            std::uint64_t const free = bus.last_column + delay(bus.last_kind) + p.burst_cycles + 1;
            next = std::max(next, free - std::min(free, delay(kind)));
        }
        return next;
    }

    /// Carries out the next refresh: closes all banks as soon as each may be. Returns its cycle. A
    /// rank counts as open up to there, or `until`.
    std::uint64_t refresh(rank_state& rank, dram_counts& into, std::uint64_t until) const {
        dram_parameters const& p = parameters_;
        std::uint64_t start = rank.next_refresh;
        for (bank_state const& bank : rank.banks) {
            start =
                std::max(start, bank.row ? bank.may_precharge + p.rp_cycles : bank.may_activate);
        }
        for (bank_state& bank : rank.banks) {
            bank.row.reset();
            bank.may_activate = start + p.rfc_cycles;
        }
        if (rank.is_open) {
            into.open += cycles(std::min(start, until) - std::min(rank.open_since, until));
            rank.is_open = false;
        }
        ++into.refreshes;
        rank.next_refresh += p.refi_cycles;
        return start;
    }

    void tell(dram_command_kind kind, std::uint64_t cycle, dram_address const& at) const {
        if (listener_) {
            listener_({kind, cycle, at});
        }
    }

    dram_parameters parameters_;
    dram_mapping mapping_;
    std::vector<bus_state> buses_;
    dram_counts counts_{};
    std::function<void(dram_command const&)> listener_{};
    std::uint64_t last_arrival_ = 0;
    std::uint64_t last_complete_ = 0;
};

} // namespace sofattn::hw
