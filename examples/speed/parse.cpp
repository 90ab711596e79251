// SPDX-License-Identifier: MIT
// Google Benchmark's JSON is input from outside: nothing in it is believed.
#include "speed/speed.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <system_error>

namespace sofattn::speed {

namespace {

using json = nlohmann::json;

constexpr std::string_view prefix = "attention/prefill/";
/// All benchmarks make a few hundred kilobytes; what is far beyond is something else.
constexpr std::uintmax_t max_bytes = 64u << 20;

/// A row of the file that knows its place, "FILE: benchmarks[3]".
class json_row {
public:
    json_row(json const& value, std::string place) : value_(value), place_(std::move(place)) {
        if (!value.is_object()) {
            throw error(place_, value.type_name(), "an object");
        }
    }

    [[nodiscard]] std::string const& place() const noexcept { return place_; }

    [[nodiscard]] std::string text(char const* key) const {
        auto const found = value_.find(key);
        return found != value_.end() && found->is_string() ? found->get<std::string>() : "";
    }
    [[nodiscard]] bool is_true(char const* key) const {
        auto const found = value_.find(key);
        return found != value_.end() && found->is_boolean() && found->get<bool>();
    }
    /// error  no number, not in [least, most]; `least` 0 is excluded if `positive`
    [[nodiscard]] double number(char const* key, bool positive, double most) const {
        std::string const what = place_ + "." + key;
        std::string const limit =
            std::string(positive ? "a number above 0" : "a number of at least 0") +
            (most < std::numeric_limits<double>::max() ? " and at most 1" : "");
        auto const found = value_.find(key);
        if (found == value_.end()) {
            throw error(what, "missing", limit);
        }
        if (!found->is_number()) {
            throw error(what, io::quoted(found->dump()), limit);
        }
        auto const value = found->get<double>();
        if (!(value >= 0 && value <= most) || (positive && value == 0)) {
            throw error(what, found->dump(), limit);
        }
        return value;
    }

private:
    json const& value_;
    std::string place_;
};

/// The parameters of folder/stage/executor/param:value/...; words without a colon are left out.
std::map<std::string, std::string> parameters_of(std::string_view name) {
    std::map<std::string, std::string> result;
    while (!name.empty()) {
        std::string_view const word = name.substr(0, name.find('/'));
        name.remove_prefix(std::min(name.size(), word.size() + 1));
        if (auto const colon = word.find(':'); colon != std::string_view::npos) {
            result.emplace(word.substr(0, colon), word.substr(colon + 1));
        }
    }
    return result;
}

/// Fills what a row's name tells.
void read_name(measurement& m, std::string const& name, std::string const& place) {
    auto const parameters = parameters_of(name);
    auto const word = [&](char const* key) {
        auto const found = parameters.find(key);
        if (found == parameters.end()) {
            throw error(place + ".name", io::quoted(name), std::string("one with ") + key + ":...");
        }
        return found->second;
    };
    auto const count = [&](char const* key) {
        std::string const digits = word(key);
        int value = 0;
        char const* const end = digits.data() + digits.size();
        auto const [at, code] = std::from_chars(digits.data(), end, value);
        if (code != std::errc() || at != end || value < 1) {
            throw error(place + ".name: " + key, io::quoted(digits), "a whole number from 1");
        }
        return value;
    };
    std::string const data = word("data");
    if (data != "recorded" && data != "random") {
        throw error(place + ".name: data", io::quoted(data), "recorded or random");
    }
    m.recorded = data == "recorded";
    m.layer = m.recorded ? count("layer") : 0;
    m.method = word("method");
    m.tokens = count("tokens");
    m.dim = count("dim");
    (m.method.starts_with("pages") ? m.lost_permille : m.kept_percent) =
        count(m.method.starts_with("pages") ? "lost_permille" : "kept_percent");
    m.threads = count("threads");
}

double milliseconds(json_row const& row) {
    std::string const unit = row.text("time_unit");
    double const time = row.number("real_time", true, std::numeric_limits<double>::max());
    for (auto const& [name, each] : {std::pair{"ns", 1e-6}, std::pair{"us", 1e-3},
                                     std::pair{"ms", 1.0}, std::pair{"s", 1e3}}) {
        if (unit == name) {
            return time * each;
        }
    }
    throw error(row.place() + ".time_unit", io::quoted(unit), "ns, us, ms or s");
}

measurement measured(json_row const& row, std::string const& name) {
    constexpr double any = std::numeric_limits<double>::max();
    measurement m;
    read_name(m, name, row.place());
    m.kept = row.number("kept", true, 1.0);
    m.error = row.number("error", false, any);
    m.bf16_error = row.number("bf16_error", false, any);
    m.time_ms = milliseconds(row);
    m.index_ms = row.number("index_ms", false, any);
    m.over_f32 = row.number("over_f32", true, any);
    m.over_bf16 = row.number("over_bf16", true, any);
    m.over_int8 = row.number("over_int8", true, any);
    return m;
}

std::string date_of(json const& root) {
    auto const context = root.find("context");
    if (context == root.end() || !context->is_object()) {
        return "";
    }
    std::string const date = json_row(*context, "").text("date").substr(0, 10);
    std::string_view const shape = "dddd-dd-dd";
    bool const fits =
        date.size() == shape.size() && std::ranges::equal(date, shape, [](char c, char wanted) {
            return wanted == 'd' ? c >= '0' && c <= '9' : c == wanted;
        });
    return fits ? date : "";
}

/// Median of a member over the rows of one name.
double median(std::vector<measurement> const& rows, double measurement::*member) {
    std::vector<double> values(rows.size());
    std::ranges::transform(rows, values.begin(), [=](auto const& row) { return row.*member; });
    std::ranges::sort(values);
    return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

/// Rows with one name as one.
std::vector<measurement> without_repetitions(std::vector<measurement> const& rows) {
    using key = std::tuple<bool, int, std::string, index_t, index_t, int, int, index_t>;
    std::map<key, std::vector<measurement>> by_name;
    for (auto const& m : rows) {
        by_name[{!m.recorded, m.layer, m.method, m.tokens, m.dim, m.kept_percent, m.lost_permille,
                 m.threads}]
            .push_back(m);
    }
    std::vector<measurement> result;
    for (auto const& entry : by_name) {
        measurement m = entry.second.front();
        for (double measurement::*const member :
             {&measurement::kept, &measurement::error, &measurement::bf16_error,
              &measurement::time_ms, &measurement::index_ms, &measurement::over_f32,
              &measurement::over_bf16, &measurement::over_int8}) {
            m.*member = median(entry.second, member);
        }
        result.push_back(std::move(m));
    }
    return result;
}

} // namespace

measurements parse(std::string_view text, std::string const& file) {
    json root;
    try {
        root = json::parse(text);
    } catch (json::parse_error const& e) {
        auto const upto = text.substr(0, std::min(e.byte > 0 ? e.byte - 1 : 0, text.size()));
        auto const line = 1 + std::ranges::count(upto, '\n');
        auto const column = upto.size() - (upto.rfind('\n') + 1) + 1; // npos + 1 is 0
        throw error(
            file, "no JSON at line " + std::to_string(line) + ", column " + std::to_string(column),
            "what --benchmark_out of Google Benchmark writes");
    } catch (json::exception const&) {
        throw error(file, "a number that no double holds",
                    "what --benchmark_out of Google Benchmark writes");
    }
    auto const list = root.is_object() ? root.find("benchmarks") : root.end();
    if (!root.is_object() || list == root.end() || !list->is_array()) {
        throw error(file + ": benchmarks",
                    root.is_object() && list != root.end() ? list->type_name() : "missing",
                    "a list, as --benchmark_out of Google Benchmark writes");
    }
    measurements result;
    result.files = file;
    result.date = date_of(root);
    std::map<std::string, measurement> medians; // of names, where single runs were left out
    std::vector<std::string> single;
    std::string first_skipped;
    for (std::size_t i = 0; i < list->size(); ++i) {
        json_row const row((*list)[i], file + ": benchmarks[" + std::to_string(i) + "]");
        std::string name = row.text("run_name");
        name = name.empty() ? row.text("name") : name;
        bool const aggregate = row.text("run_type") == "aggregate";
        if (!name.starts_with(prefix) || (aggregate && row.text("aggregate_name") != "median")) {
            continue;
        }
        if (row.is_true("error_occurred")) {
            first_skipped = first_skipped.empty() ? row.text("error_message") : first_skipped;
        } else if (aggregate) {
            medians.emplace(name, measured(row, name));
        } else {
            result.rows.push_back(measured(row, name));
            single.push_back(name);
        }
    }
    for (auto const& entry : medians) {
        if (std::ranges::find(single, entry.first) == single.end()) {
            result.rows.push_back(entry.second);
        }
    }
    if (result.rows.empty()) {
        throw error(file + ": measured rows of " + std::string(prefix),
                    first_skipped.empty() ? "0" : "0 (" + io::quoted(first_skipped) + ")",
                    "at least 1");
    }
    return result;
}

measurements read(std::vector<std::filesystem::path> const& files) {
    measurements all;
    for (auto const& path : files) {
        io::input_file file(path);
        if (file.size > max_bytes) {
            throw error(file.name + ": bytes", std::to_string(file.size),
                        "at most " + std::to_string(max_bytes));
        }
        std::string text(static_cast<std::size_t>(file.size), '\0');
        file.read(text.data(), text.size());
        measurements one = parse(text, file.name);
        all.rows.insert(all.rows.end(), one.rows.begin(), one.rows.end());
        all.files += (all.files.empty() ? "" : ", ") + one.files;
        all.date = all.date.empty() ? one.date : all.date;
    }
    all.rows = without_repetitions(all.rows);
    return all;
}

} // namespace sofattn::speed
