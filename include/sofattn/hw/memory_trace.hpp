// SPDX-License-Identifier: MIT
// Memory requests as traces of DRAMsim3 and of Ramulator 2, to check the DRAM model with.
#pragma once

#include <sofattn/core/error.hpp>
#include <sofattn/hw/dram.hpp>
#include <sofattn/hw/dram_parameters.hpp>

#include <array>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <istream>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace sofattn::hw {

enum class trace_format {
    dramsim3,             ///< "0xADDRESS READ|WRITE CYCLE"
    ramulator_load_store, ///< "LD|ST 0xADDRESS", front end LoadStoreTrace; no cycles
    ramulator_read_write  ///< "R|W channel,pseudo-channel or rank,group,bank,row,column",
                          ///< front end ReadWriteTrace; no cycles
};

/// Writes requests as lines, one per burst, in the order in which they come. Ramulator's second
/// address level is the pseudo-channel of HBM2 and the rank of DDR4: a device with both cannot be
/// written as addresses. Columns count bursts.
class memory_trace_writer {
public:
    /// Throws `error` for a device that the format cannot describe.
    memory_trace_writer(std::ostream& out, trace_format format, dram_parameters parameters)
        : out_(out), format_(format), parameters_(std::move(parameters)),
          mapping_((parameters_.validate(), parameters_)) {
        check(format, parameters_);
    }

    void operator()(memory_request const& request) {
        for_each_burst(request, parameters_.burst_bytes, [&](std::uint64_t at) {
            line(at, request.kind == memory_access::read, request.arrival_cycle);
        });
    }

    static void check(trace_format format, dram_parameters const& p) {
        if (format == trace_format::ramulator_read_write && p.ranks > 1 && p.pseudo_channels > 1) {
            throw error("memory trace: ranks of a device with pseudo-channels",
                        std::to_string(p.ranks), "1 in Ramulator's address vectors");
        }
    }

private:
    void line(std::uint64_t at, bool reads, std::uint64_t cycle) {
        switch (format_) {
        case trace_format::dramsim3:
            out_ << hexadecimal(at) << (reads ? " READ " : " WRITE ") << cycle << '\n';
            break;
        case trace_format::ramulator_load_store:
            out_ << (reads ? "LD " : "ST ") << hexadecimal(at) << '\n';
            break;
        case trace_format::ramulator_read_write: {
            dram_address const a = mapping_(at);
            std::uint64_t const pseudo = parameters_.pseudo_channels;
            out_ << (reads ? "R " : "W ") << a.bus / pseudo << ','
                 << (pseudo > 1 ? a.bus % pseudo : a.rank) << ',' << a.group << ',' << a.bank << ','
                 << a.row << ',' << a.column << '\n';
            break;
        }
        }
    }
    [[nodiscard]] static std::string hexadecimal(std::uint64_t value) {
        std::array<char, 16> digits{};
        auto const end = std::to_chars(digits.data(), digits.data() + digits.size(), value, 16);
        return "0x" + std::string(digits.data(), end.ptr);
    }

    std::ostream& out_;
    trace_format format_;
    dram_parameters parameters_;
    dram_mapping mapping_;
};

/// Reads such a trace line by line: bursts, which arrive at cycle 0 where the format has no cycles.
/// A trace is input from outside: whatever is not as above is an `error` that names its line.
class memory_trace_reader {
public:
    memory_trace_reader(std::istream& in, trace_format format, dram_parameters parameters)
        : in_(in), format_(format), parameters_(std::move(parameters)),
          mapping_((parameters_.validate(), parameters_)) {
        memory_trace_writer::check(format, parameters_);
    }

    /// Nothing at the end of the trace.
    [[nodiscard]] std::optional<memory_request> next() {
        std::string text;
        if (!std::getline(in_, text)) {
            return std::nullopt;
        }
        ++number_;
        auto const words = split(text, ' ');
        memory_request request{.bytes = parameters_.burst_bytes};
        bool good = false;
        switch (format_) {
        case trace_format::dramsim3: {
            auto const cycle = words.size() == 3 ? number(words[2], 10) : std::nullopt;
            good = cycle && address(words[0], request) && kind(words[1], "READ", "WRITE", request);
            request.arrival_cycle = cycle.value_or(0);
            break;
        }
        case trace_format::ramulator_load_store:
            good = words.size() == 2 && kind(words[0], "LD", "ST", request) &&
                   address(words[1], request);
            break;
        case trace_format::ramulator_read_write:
            good =
                words.size() == 2 && kind(words[0], "R", "W", request) && vector(words[1], request);
            break;
        }
        if (!good) {
            throw error("memory trace: line " + std::to_string(number_), '"' + text + '"',
                        expected());
        }
        return request;
    }

private:
    [[nodiscard]] static std::vector<std::string_view> split(std::string_view text, char at) {
        std::vector<std::string_view> parts;
        for (;;) {
            std::size_t const end = text.find(at);
            parts.push_back(text.substr(0, end));
            if (end == std::string_view::npos) {
                return parts;
            }
            text.remove_prefix(end + 1);
        }
    }
    [[nodiscard]] static std::optional<std::uint64_t> number(std::string_view text, int base) {
        std::uint64_t value = 0;
        auto const end = text.data() + text.size();
        auto const read = std::from_chars(text.data(), end, value, base);
        if (read.ec != std::errc{} || read.ptr != end) {
            return std::nullopt;
        }
        return value;
    }
    [[nodiscard]] static bool kind(std::string_view word, std::string_view read,
                                   std::string_view write, memory_request& request) {
        request.kind = word == write ? memory_access::write : memory_access::read;
        return word == read || word == write;
    }
    [[nodiscard]] static bool address(std::string_view word, memory_request& request) {
        auto const value = word.starts_with("0x") ? number(word.substr(2), 16) : std::nullopt;
        request.address = value.value_or(0);
        return value.has_value();
    }
    [[nodiscard]] bool vector(std::string_view word, memory_request& request) const {
        dram_parameters const& p = parameters_;
        auto const words = split(word, ',');
        bool const has_pseudo = p.pseudo_channels > 1;
        std::array<std::uint64_t, 6> const limits{
            p.channels,    has_pseudo ? p.pseudo_channels : p.ranks,
            p.bank_groups, p.banks_per_group,
            p.rows,        p.bursts_per_row()};
        std::array<std::uint64_t, 6> values{};
        if (words.size() != limits.size()) {
            return false;
        }
        for (std::size_t n = 0; n < limits.size(); ++n) {
            auto const value = number(words[n], 10);
            if (!value || *value >= limits[n]) {
                return false;
            }
            values[n] = *value;
        }
        auto const [channel, second, group, bank, row, column] = values;
        request.address =
            mapping_.address_of({.bus = channel * p.pseudo_channels + (has_pseudo ? second : 0),
                                 .rank = has_pseudo ? 0 : second,
                                 .group = group,
                                 .bank = bank,
                                 .row = row,
                                 .column = column});
        return true;
    }
    [[nodiscard]] char const* expected() const noexcept {
        switch (format_) {
        case trace_format::dramsim3: return "\"0xADDRESS READ|WRITE CYCLE\"";
        case trace_format::ramulator_load_store: return "\"LD|ST 0xADDRESS\"";
        case trace_format::ramulator_read_write: break;
        }
        return "\"R|W \" and six numbers within the device, with commas between";
    }

    std::istream& in_;
    trace_format format_;
    dram_parameters parameters_;
    dram_mapping mapping_;
    std::uint64_t number_ = 0;
};

} // namespace sofattn::hw
