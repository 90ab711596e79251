// SPDX-License-Identifier: MIT
// Certificates through the whole pipeline: whatever the data, the truth is within their bounds.
//
// SOFATTN_CERTIFICATE_ROWS of the environment, e.g. 1000000, is how many rows are certified in all
// by the first case; 20000 without it.
#include "attention/layer_case.hpp"
#include "support/generators.hpp"
#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/certificate.hpp>
#include <sofattn/core/hadamard.hpp>
#include <sofattn/ref/quality.hpp>
#include <sofattn/sads/adaptive.hpp>
#include <sofattn/sads/row_selectors.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/tail.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <span>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

// --- pipelines -----------------------------------------------------------------------------------

/// A run with a certificate per row.
struct certified_run {
    run_record record;
    std::vector<row_certificate> rows; ///< [head * queries + query]
    std::vector<int> calls;            ///< the same, how often on_row was called
};

using run_function = certified_run (*)(attention_options const&, problem<float> const&);

template <class Attention>
certified_run certify(attention_options const& options, problem<float> const& given) {
    problem_shape const s = given.shape();
    auto const rows = static_cast<std::size_t>(s.heads * s.queries);
    certified_run run;
    run.record.output =
        tensor<float, axis::head, axis::query, axis::value_dim>({s.heads, s.queries, s.value_dim});
    run.record.kept.resize(rows);
    run.rows.resize(rows);
    run.calls.resize(rows);
    auto const at = [&](index_t h, index_t q) {
        return static_cast<std::size_t>(h * s.queries + q);
    };
    typename Attention::execution x;
    run.record.result = Attention(options)(
        x, given, run.record.output.view(),
        [&](index_t h, index_t q, auto kept) {
            for (auto const& entry : kept) {
                run.record.kept[at(h, q)].push_back(entry.key);
            }
        },
        [&](index_t h, index_t q, row_certificate const& certificate) {
            run.rows[at(h, q)] = certificate;
            run.calls[at(h, q)] += 1;
        });
    return run;
}

template <class P, class S, class Tail, class Source = sufa::recomputed, class X = exec::reference>
using composed = attention<P, S, sufa::sorted_updating<sufa::descending, Source>, X,
                           rass::reuse_aware, dlzs::coded_weights, Tail>;

using whole = sads::adaptive<sads::whole_row>;
using running = sads::adaptive<sads::tile_by_tile>;
using narrow_float = exec::executor<exec::scalar_lanes<4>, probe::silent, float>;

/// A composition behind a function pointer: what follows is compiled once.
struct composition {
    char const* name;
    run_function run;
    bool weighs; ///< the selector reads budgets of mass
    bool reuses; ///< kept keys may be attended with predicted logits
};

template <class Attention>
constexpr composition entry(char const* name) {
    return {name, &certify<Attention>, weighs_scores<typename Attention::selector>,
            sufa::reuses_scores<typename Attention::attender>};
}

#define SOFATTN_COMPOSED(...) entry<composed<__VA_ARGS__>>(#__VA_ARGS__)

composition const compositions[] = {
    SOFATTN_COMPOSED(dlzs::rotated_int8, whole, sufa::no_tail),
    SOFATTN_COMPOSED(dlzs::rotated_int8, whole, sufa::segment_tail, sufa::reused),
    SOFATTN_COMPOSED(dlzs::rotated_int8, running, sufa::mean_tail),
    SOFATTN_COMPOSED(dlzs::rotated_int8, sads::full_topk, sufa::no_tail),
    SOFATTN_COMPOSED(dlzs::int8_per_query, running, sufa::no_tail, sufa::reused),
    SOFATTN_COMPOSED(dlzs::int8_per_query, whole, sufa::int8_tail),
    SOFATTN_COMPOSED(dlzs::dlzs8, sads::full_topk, sufa::mean_tail, sufa::reused),
    SOFATTN_COMPOSED(dlzs::dlzs8, sads::full_topk, sufa::no_tail),
    SOFATTN_COMPOSED(dlzs::lz_keys, running, sufa::segment_tail),
    SOFATTN_COMPOSED(dlzs::exact, running, sufa::int8_tail, sufa::reused),
    SOFATTN_COMPOSED(dlzs::exact, sads::full_topk, sufa::mean_tail),
    SOFATTN_COMPOSED(dlzs::centred_int4, whole, sufa::mean_tail, sufa::reused),
    SOFATTN_COMPOSED(dlzs::centred_int4, running, sufa::no_tail),
    SOFATTN_COMPOSED(dlzs::rotated_int8, running, sufa::no_tail, sufa::reused, narrow_float),
    SOFATTN_COMPOSED(dlzs::rotated_int8, whole, sufa::segment_tail, sufa::recomputed, narrow_float),
    SOFATTN_COMPOSED(dlzs::exact, sads::full_topk, sufa::segment_tail, sufa::recomputed,
                     narrow_float),
    SOFATTN_COMPOSED(dlzs::rotated_int8, whole, sufa::segment_tail, sufa::reused, exec::simd),
    SOFATTN_COMPOSED(dlzs::rotated_int8, running, sufa::mean_tail, sufa::recomputed, exec::simd),
    SOFATTN_COMPOSED(dlzs::dlzs8, sads::full_topk, sufa::no_tail, sufa::recomputed, exec::simd),
    SOFATTN_COMPOSED(dlzs::int8_per_query, whole, sufa::int8_tail, sufa::reused, exec::simd),
};

// --- data ----------------------------------------------------------------------------------------

enum class data {
    normal,           ///< with a planted match per query
    planted,          ///< a few keys far above the others
    clustered,        ///< keys near one of three centres
    large_logits,     ///< +-200
    steep_logits,     ///< +-1000: weights of dropped keys underflow
    ties,             ///< three different keys
    constant_values,  ///< one value
    huge_values,      ///< 1e30
    tiny_values,      ///< 1e-30
    huge_keys,        ///< 1e30, queries 1e-30
    tiny_keys,        ///< 1e-30, queries 1e30
    huge_logits,      ///< keys 1e30, queries 1e3
    zero_keys,        ///< all
    zero_queries,     ///< every second row, or all
    midpoints,        ///< what is rounded away adds up along every query
    turned_midpoints, ///< the same in the channels that rotated policies see
    outlier_channel,  ///< one that blows up the step of all others
    outlier_query,    ///< one row that blows up the step of a head
    far_mean          ///< keys about 100
};
constexpr std::array all_data{
    data::normal,          data::planted,       data::clustered,       data::large_logits,
    data::steep_logits,    data::ties,          data::constant_values, data::huge_values,
    data::tiny_values,     data::huge_keys,     data::tiny_keys,       data::huge_logits,
    data::zero_keys,       data::zero_queries,  data::midpoints,       data::turned_midpoints,
    data::outlier_channel, data::outlier_query, data::far_mean};

template <class F>
void transform_all(auto& of, F f) {
    for_each_index(of.view().extents(),
                   [&](auto const& i) { at(of.view(), i) = f(at(of.view(), i), i); });
}

/// Keys that lie just under the midpoints between codes of step 1, all on the side that queries
/// point to or, half of them, away from it; `turned`: after the rotation.
void put_on_midpoints(generator& random, layer_case& layer, bool turned) {
    layer_shape const s = layer.shape;
    auto const dims = static_cast<std::size_t>(s.dim);
    std::vector<double> signs(dims);
    std::ranges::generate(signs, [&] { return random.chance(0.5) ? 1.0 : -1.0; });
    auto const turn = [&](std::vector<double>& row, double factor) {
        if (turned) {
            hadamard_rotate(row);
            std::ranges::for_each(row, [&](double& x) { x *= factor; });
        }
    };
    // Rotated, scaled and rotated again is what it was.
    auto const back = static_cast<double>(hadamard_block(s.dim));
    std::vector<double> row(dims);
    for (index_t h = 0; h < s.heads; ++h) {
        for (index_t r = 0; r < s.queries; ++r) {
            for (std::size_t d = 0; d < dims; ++d) {
                row[d] = signs[d] * std::abs(random.normal(0.05));
            }
            turn(row, back);
            for (std::size_t d = 0; d < dims; ++d) {
                layer.q(h, r, static_cast<index_t>(d)) = static_cast<float>(row[d]);
            }
        }
    }
    bool const both_ways = random.chance(0.5);
    int const reach = random.chance(0.5) ? 126 : 20;
    for (index_t kv = 0; kv < s.kv_heads; ++kv) {
        for (index_t k = 0; k < s.keys; ++k) {
            double const side = both_ways && random.chance(0.5) ? -0.49 : 0.49;
            for (std::size_t d = 0; d < dims; ++d) {
                row[d] = static_cast<double>(random.integer(-reach, reach)) + side * signs[d];
            }
            row[0] = k == 0 ? 127.0 : row[0];
            turn(row, back);
            for (std::size_t d = 0; d < dims; ++d) {
                layer.k(kv, k, static_cast<index_t>(d)) = static_cast<float>(row[d]);
            }
            for (index_t d = 0; d < s.value_dim; ++d) {
                layer.v(kv, k, d) = side < 0.0 ? -1.0f : 1.0f;
            }
        }
    }
}

void shape_data(generator& random, layer_case& layer, data kind) {
    layer_shape const s = layer.shape;
    auto const times = [](float factor) {
        return [=](float x, auto const&) { return x * factor; };
    };
    auto const rows =
        random_matrix<float, axis::kv_head, axis::key, axis::dim>(random, {s.kv_heads, 3, s.dim});
    switch (kind) {
    case data::normal: break;
    case data::planted:
        for (index_t kv = 0; kv < s.kv_heads; ++kv) {
            for (index_t n = 0; n < 3; ++n) {
                index_t const k = random.integer<index_t>(0, s.keys - 1);
                index_t const r = random.integer<index_t>(0, s.queries - 1);
                for (index_t d = 0; d < s.dim; ++d) {
                    layer.k(kv, k, d) = 3.0f * layer.q(kv * (s.heads / s.kv_heads), r, d);
                }
            }
        }
        break;
    case data::clustered:
        for (index_t kv = 0; kv < s.kv_heads; ++kv) {
            for (index_t k = 0; k < s.keys; ++k) {
                index_t const cluster = random.integer<index_t>(0, 2);
                for (index_t d = 0; d < s.dim; ++d) {
                    layer.k(kv, k, d) = 2.0f * rows(kv, cluster, d) + 0.1f * layer.k(kv, k, d);
                }
            }
        }
        break;
    case data::large_logits: transform_all(layer.q, times(70.0f)); break;
    case data::steep_logits: transform_all(layer.q, times(350.0f)); break;
    case data::ties:
        for (index_t kv = 0; kv < s.kv_heads; ++kv) {
            for (index_t k = 0; k < s.keys; ++k) {
                index_t const copy = random.integer<index_t>(0, 2);
                for (index_t d = 0; d < s.dim; ++d) {
                    layer.k(kv, k, d) = rows(kv, copy, d);
                }
            }
        }
        break;
    case data::constant_values: {
        auto const value = static_cast<float>(random.normal(10.0));
        transform_all(layer.v, [&](float, auto const&) { return value; });
        break;
    }
    case data::huge_values: transform_all(layer.v, times(1e30f)); break;
    case data::tiny_values: transform_all(layer.v, times(1e-30f)); break;
    case data::huge_keys:
        transform_all(layer.k, times(1e30f));
        transform_all(layer.q, times(1e-30f));
        break;
    case data::tiny_keys:
        transform_all(layer.k, times(1e-30f));
        transform_all(layer.q, times(1e30f));
        break;
    case data::huge_logits:
        transform_all(layer.k, times(1e30f));
        transform_all(layer.q, times(1e3f));
        break;
    case data::zero_keys: transform_all(layer.k, times(0.0f)); break;
    case data::zero_queries: {
        bool const all = random.chance(0.5);
        transform_all(layer.q,
                      [&](float x, auto const& i) { return all || i[1] % 2 == 0 ? 0.0f : x; });
        break;
    }
    case data::midpoints: put_on_midpoints(random, layer, false); break;
    case data::turned_midpoints: put_on_midpoints(random, layer, true); break;
    case data::outlier_channel: {
        index_t const channel = random.integer<index_t>(0, s.dim - 1);
        float const factor = random.chance(0.5) ? 50.0f : 1000.0f;
        transform_all(layer.k,
                      [&](float x, auto const& i) { return i.back() == channel ? x * factor : x; });
        if (random.chance(0.5)) { // the same logits
            transform_all(layer.q, [&](float x, auto const& i) {
                return i.back() == channel ? x / factor : x;
            });
        }
        break;
    }
    case data::outlier_query: {
        index_t const row = random.integer<index_t>(0, s.queries - 1);
        transform_all(layer.q, [&](float x, auto const& i) { return i[1] == row ? x * 50.0f : x; });
        break;
    }
    case data::far_mean:
        transform_all(layer.k, [](float x, auto const&) { return x + 100.0f; });
        break;
    }
    if (random.chance(0.2)) { // all values on one of two sides, by the logits of the first query
        transform_all(layer.v, [&](float x, auto const& i) {
            double sum = 0;
            for (index_t d = 0; d < s.dim; ++d) {
                sum += static_cast<double>(layer.k(i[0], i[1], d)) *
                       static_cast<double>(layer.q(i[0] * (s.heads / s.kv_heads), 0, d));
            }
            return sum > 0 ? std::abs(x) : -std::abs(x);
        });
    }
    if (random.chance(0.1)) { // one value far from all others
        layer.v(0, random.integer<index_t>(0, s.keys - 1), 0) *= 1000.0f;
    }
}

struct certificate_case {
    layer_case layer;
    attention_options options;
};

certificate_case random_case(generator& random, data kind, bool weighs) {
    index_t const kv_heads = random.integer<index_t>(1, 2);
    layer_shape s;
    s.heads = kv_heads * random.integer<index_t>(1, 3);
    s.kv_heads = kv_heads;
    s.keys = random.chance(0.4) ? random.integer<index_t>(1, 20) : random.integer<index_t>(1, 200);
    s.queries = random.integer<index_t>(1, 12);
    s.dim =
        random.chance(0.3) ? index_t{1} << random.integer(0, 5) : random.integer<index_t>(1, 32);
    s.value_dim = random.integer<index_t>(1, 20);
    certificate_case c{layer_case(random, s, random.chance(0.5)), {}};
    shape_data(random, c.layer, kind);
    if (weighs) {
        constexpr std::array masses{0.3, 0.7, 0.9, 0.99, 0.999, 1.0};
        c.options.budget =
            random.chance(0.8)
                ? sads::budget::of_mass(
                      random.chance(0.5)
                          ? random.uniform(0.3, 1.0)
                          : masses[random.integer<std::size_t>(0, masses.size() - 1)])
                : sads::budget::of_output_error(random.uniform(0.001, 0.5));
        if (random.chance(0.1)) {
            c.options.budget.at_most = random.integer<index_t>(1, 30);
        }
    } else {
        c.options.budget = sads::budget::of_ratio(random.uniform(0.02, 1.0));
    }
    if (random.chance(0.2)) {
        c.options.budget.sinks = random.integer<index_t>(0, 2);
        c.options.budget.window = random.integer<index_t>(0, 4);
    }
    if (random.chance(0.1)) {
        c.options.budget.radius = random.uniform(0.0, 5.0);
    }
    c.options.tile_keys = random.chance(0.7) ? 16 : random.integer<index_t>(1, 100);
    c.options.scope =
        random.chance(0.5) ? selection_scope::per_group : selection_scope::per_query_head;
    return c;
}

// --- the truth -----------------------------------------------------------------------------------

struct row_facts {
    double dropped = 0; ///< softmax mass of the dropped keys, at most 1
    double error = 0;   ///< length of output - dense output
    double length = 0;  ///< of the dense output
    bool all_kept = true;
    bool sees_keys = false;
};

row_facts facts_of(layer_case const& layer, run_record const& record, index_t head, index_t query) {
    problem_shape const s = layer.given().shape();
    row_facts facts;
    if (s.visible(query) == 0) {
        return facts;
    }
    index_t const kv = head / s.group();
    ref::row_truth const truth(layer.q.cview().slice<axis::head>(head).slice<axis::query>(query),
                               layer.k.cview().slice<axis::kv_head>(kv),
                               layer.v.cview().slice<axis::kv_head>(kv), s.visible(query), s.scale);
    auto const& kept = record.kept[static_cast<std::size_t>(head * s.queries + query)];
    std::vector<char> is_kept(truth.weights().size());
    for (key_id const k : kept) {
        is_kept[static_cast<std::size_t>(k)] = 1;
    }
    facts.sees_keys = true;
    facts.all_kept = kept.size() == is_kept.size();
    for (std::size_t k = 0; k < is_kept.size(); ++k) {
        facts.dropped += is_kept[k] != 0 ? 0.0 : truth.weights()[k];
    }
    facts.dropped = std::min(facts.dropped, 1.0);
    auto const judged = truth.judge(
        kept, std::span(&record.output(head, query, 0), static_cast<std::size_t>(s.value_dim)));
    facts.error = std::sqrt(judged.error_square);
    facts.length = std::sqrt(judged.output_square);
    return facts;
}

/// What went wrong, in few lines however often.
class complaints {
public:
    void add(std::string const& where, std::string const& what) {
        auto const known = std::ranges::find(entries_, where, &one::where);
        if (known == entries_.end()) {
            entries_.push_back({where, what, 1});
        } else {
            known->times += 1;
        }
    }
    [[nodiscard]] bool empty() const { return entries_.empty(); }
    [[nodiscard]] std::string text() const {
        std::ostringstream out;
        for (one const& e : entries_) {
            out << '\n' << e.where << ", " << e.times << " times, first: " << e.what;
        }
        return out.str();
    }

private:
    struct one {
        std::string where;
        std::string what;
        std::size_t times;
    };
    std::vector<one> entries_;
};

void describe(std::ostream& out, layer_case const& layer, attention_options const& options) {
    layer_shape const s = layer.shape;
    out << " (heads " << s.heads << '/' << s.kv_heads << ", queries " << s.queries << ", keys "
        << s.keys << ", dims " << s.dim << '/' << s.value_dim << (layer.causal ? ", causal" : "")
        << (options.scope == selection_scope::per_group ? ", per group" : "") << ", tile "
        << options.tile_keys << ')';
}

/// Runs compositions in turn on data in turn, until so many rows have been certified; calls
/// check(composition, data, layer, certified row, facts, say), say("text") to complain.
template <class Check>
void for_certified_rows(index_t rows, Check check) {
    SOFATTN_GENERATOR(random);
    complaints found;
    index_t layers = 0;
    for (index_t done = 0; done < rows; ++layers) {
        composition const& chosen =
            compositions[static_cast<std::size_t>(layers) % std::size(compositions)];
        data const kind = all_data[static_cast<std::size_t>(
            random.integer<index_t>(0, std::ssize(all_data) - 1))];
        std::uint64_t const layer_seed = random.next();
        generator of_layer(layer_seed);
        auto const c = random_case(of_layer, kind, chosen.weighs);
        auto const run = chosen.run(c.options, c.layer.given());
        for (index_t h = 0; h < c.layer.shape.heads; ++h) {
            for (index_t q = 0; q < c.layer.shape.queries; ++q, ++done) {
                auto const row = static_cast<std::size_t>(h * c.layer.shape.queries + q);
                row_facts const facts = facts_of(c.layer, run.record, h, q);
                row_certificate const& certificate = run.rows[row];
                check(chosen, kind, certificate, run.calls[row], facts, [&](char const* text) {
                    std::ostringstream what;
                    what.precision(17);
                    what << "dropped " << facts.dropped << " estimate " << certificate.dropped_mass
                         << " bound " << certificate.dropped_mass_bound << "; error " << facts.error
                         << " estimate " << certificate.error << " bound "
                         << certificate.error_bound << "; head " << h << " query " << q
                         << " of layer seed " << layer_seed;
                    describe(what, c.layer, c.options);
                    found.add(std::string(text) + ": " + chosen.name + " on data " +
                                  std::to_string(static_cast<int>(kind)),
                              what.str());
                });
            }
        }
    }
    std::string const text = found.text();
    INFO(text);
    CHECK(found.empty());
}

index_t certified_rows() {
    char const* text = std::getenv("SOFATTN_CERTIFICATE_ROWS");
    return text != nullptr ? static_cast<index_t>(std::strtoll(text, nullptr, 10)) : 20000;
}

/// Of sorted or unsorted numbers.
double quantile(std::vector<double> of, double share) {
    std::ranges::sort(of);
    return of.empty() ? 0.0
                      : of[static_cast<std::size_t>(share * static_cast<double>(of.size() - 1))];
}

/// A layer of one head from numbers: queries, keys [key], values [key], all of one channel.
layer_case one_channel(std::vector<float> const& queries, std::vector<float> const& keys,
                       std::vector<float> const& values) {
    generator random;
    layer_case layer(random, {1, 1, std::ssize(queries), std::ssize(keys), 1, 1}, false);
    for (index_t r = 0; r < std::ssize(queries); ++r) {
        layer.q(0, r, 0) = queries[static_cast<std::size_t>(r)];
    }
    for (index_t k = 0; k < std::ssize(keys); ++k) {
        layer.k(0, k, 0) = keys[static_cast<std::size_t>(k)];
        layer.v(0, k, 0) = values[static_cast<std::size_t>(k)];
    }
    return layer;
}

void check_bounds(layer_case const& layer, certified_run const& run) {
    for (index_t h = 0; h < layer.shape.heads; ++h) {
        for (index_t q = 0; q < layer.shape.queries; ++q) {
            CAPTURE(h);
            CAPTURE(q);
            row_facts const facts = facts_of(layer, run.record, h, q);
            row_certificate const& certificate =
                run.rows[static_cast<std::size_t>(h * layer.shape.queries + q)];
            CHECK(facts.dropped <= certificate.dropped_mass_bound);
            CHECK(facts.error <= certificate.error_bound);
        }
    }
}

} // namespace

// --- bounds --------------------------------------------------------------------------------------

TEST_CASE("attention.certificate: the truth is within the bounds, whatever the data") {
    for_certified_rows(certified_rows(), [](composition const&, data, row_certificate const& c,
                                            int calls, row_facts const& facts, auto const& say) {
        if (!(facts.dropped <= c.dropped_mass_bound)) {
            say("dropped mass above its bound");
        }
        if (!(facts.error <= c.error_bound)) {
            say("error above its bound");
        }
        if (!(c.dropped_mass_bound >= 0.0 && c.dropped_mass_bound <= 1.0)) {
            say("dropped mass bounded by no share");
        }
        if (calls != 1) {
            say("not called once");
        }
    });
}

TEST_CASE("attention.certificate: estimates are numbers, and shares where masses") {
    for_certified_rows(4000, [](composition const&, data, row_certificate const& c, int,
                                row_facts const& facts, auto const& say) {
        if (!(c.dropped_mass >= 0.0 && c.dropped_mass <= 1.0)) {
            say("estimated mass is no share");
        }
        if (!(c.error >= 0.0 && std::isfinite(c.error))) {
            say("estimated error is no number");
        }
        if (!(c.error_bound >= 0.0 && std::isfinite(c.error_bound))) {
            say("bound of the error is no number");
        }
        if (!facts.sees_keys && !(c.dropped_mass == 0.0 && c.dropped_mass_bound == 0.0 &&
                                  c.error == 0.0 && c.error_bound == 0.0)) {
            say("a row without keys has something to certify");
        }
    });
}

TEST_CASE("attention.certificate: where nothing is dropped no mass is, nor an error estimated") {
    for_certified_rows(6000, [](composition const& chosen, data, row_certificate const& c, int,
                                row_facts const& facts, auto const& say) {
        if (facts.all_kept && !(c.dropped_mass == 0.0 && c.dropped_mass_bound == 0.0)) {
            say("dropped mass where nothing is dropped");
        }
        // Or the bound, where logits are too large for an estimate.
        if (facts.all_kept && !chosen.reuses && c.error != 0.0 && c.error != c.error_bound) {
            say("estimated error where nothing is dropped");
        }
    });
}

TEST_CASE("attention.certificate: weights that underflow are bounded, too") {
    // One key per step of a quantiser, a dropped one as far from its code as can be: its weight is
    // far below the smallest whose square is a number.
    for (float const depth : {100.0f, 300.0f, 350.0f, 360.0f, 380.0f, 400.0f, 600.0f, 700.0f}) {
        for (float const off : {-0.49f, -0.2f, 0.2f, 0.49f}) {
            CAPTURE(depth);
            CAPTURE(off);
            float const step = depth / 127.0f;
            auto const layer = one_channel({1.0f}, {depth, off * step}, {0.0f, 1.0f});
            auto const run =
                certify<composed<dlzs::int8_per_query, sads::full_topk, sufa::no_tail>>(
                    with(sads::budget::of_count(1)), layer.given());
            CHECK(run.record.kept[0].size() == 1);
            check_bounds(layer, run);
            // And not out of all proportion.
            double const truth = facts_of(layer, run.record, 0, 0).dropped;
            CHECK(run.rows[0].dropped_mass_bound <= 1000.0 * truth);
        }
    }
}

TEST_CASE("attention.certificate: long rows in float are within their bounds") {
    // Sums of a thousand equal weights and values round the same way every time.
    for (index_t const keys : {500, 1000, 4000, 10000}) {
        for (float const value : {0.1f, 0.3f, 0.7f}) {
            CAPTURE(keys);
            CAPTURE(value);
            auto const count = static_cast<std::size_t>(keys);
            auto const layer = one_channel({0.0f}, std::vector<float>(count, 1.0f),
                                           std::vector<float>(count, value));
            check_bounds(layer, certify<composed<dlzs::exact, sads::full_topk, sufa::segment_tail,
                                                 sufa::recomputed, narrow_float>>(
                                    with(sads::budget::of_ratio(1.0)), layer.given()));
        }
    }
}

TEST_CASE("attention.certificate: means of few dropped values beside many kept ones, in float") {
    // A dropped value is what the sum of 64 less 63 kept ones leaves; all of a head's weight is on it
    // where the other heads of the group select.
    SOFATTN_GENERATOR(random);
    for (int n = 0; n < 10; ++n) {
        layer_case layer(random, {2, 1, 1, 64, 1, 4}, false);
        auto const dropped = random.integer<index_t>(0, 63);
        for (index_t k = 0; k < 64; ++k) {
            layer.k(0, k, 0) = k == dropped ? -1.0f : 1.0f;
            for (index_t d = 0; d < 4; ++d) {
                layer.v(0, k, d) = 100.0f + static_cast<float>(random.normal());
            }
        }
        layer.q(0, 0, 0) = 30.0f;
        layer.q(1, 0, 0) = -20.0f;
        auto options = with(sads::budget::of_count(63));
        options.scope = selection_scope::per_group;
        check_bounds(layer,
                     certify<composed<dlzs::exact, sads::full_topk, sufa::segment_tail,
                                      sufa::recomputed, narrow_float>>(options, layer.given()));
    }
}

TEST_CASE(
    "attention.certificate: outputs below the smallest normal float are within their bounds") {
    auto const layer = one_channel({0.0f}, {1.0f, 1.0f}, {0x1p-149f, 0x1p-148f});
    check_bounds(layer, certify<composed<dlzs::rotated_int8, sads::full_topk, sufa::no_tail>>(
                            with(sads::budget::of_ratio(1.0)), layer.given()));
}

TEST_CASE("attention.certificate: logits far below what was predicted leave a certificate") {
    // The power of two below 127 halves these logits: exp(predicted - exact) is no number.
    auto const certified = certify<composed<dlzs::lz_keys, running, sufa::segment_tail>>;
    auto const one = one_channel({1.0f}, {-2000.0f}, {3.0f});
    auto const kept = certified(with(sads::budget::of_mass(0.9)), one.given());
    check_bounds(one, kept);
    CHECK(kept.rows[0].dropped_mass == 0.0);
    CHECK(kept.rows[0].dropped_mass_bound == 0.0);
    CHECK(kept.rows[0].error <= kept.rows[0].error_bound);
    auto const two = one_channel({1.0f}, {-2000.0f, -4000.0f}, {3.0f, 1.0f});
    auto const dropped = certified(with(sads::budget::of_mass(0.5)), two.given());
    CHECK(dropped.record.kept[0].size() == 1);
    check_bounds(two, dropped);
    CHECK(dropped.rows[0].dropped_mass <= 1.0);
    CHECK(std::isfinite(dropped.rows[0].error));
}

TEST_CASE("attention.certificate: logits far above what was predicted are bounded, too") {
    // The power of two below 127 halves these logits, so all books are kept far below the true best.
    for (float const dropped : {0.0f, 500.0f, 1000.0f, 1300.0f, 1425.0f, 1700.0f}) {
        for (float const best : {1430.0f, 1470.0f, 1490.0f, 1510.0f, 2000.0f, 3000.0f}) {
            CAPTURE(dropped);
            CAPTURE(best);
            if (dropped < best) {
                auto const layer = one_channel({1.0f}, {best, dropped}, {0.0f, 1.0f});
                auto const run = certify<composed<dlzs::dlzs8, sads::full_topk, sufa::no_tail>>(
                    with(sads::budget::of_count(1)), layer.given());
                CHECK(run.record.kept[0].size() == 1);
                check_bounds(layer, run);
            }
        }
    }
}

TEST_CASE("attention.certificate: what all keys have in common moves no bound") {
    // Keys far from zero in the direction of the query: softmax does not see it, nor do centred keys.
    SOFATTN_GENERATOR(random);
    for (double const common : {-1000.0, -600.0, -450.0, -300.0, 300.0, 600.0, 1000.0}) {
        CAPTURE(common);
        layer_case layer(random, {1, 1, 1, 60, 16, 8}, false);
        double square = 0;
        for (index_t d = 0; d < 16; ++d) {
            square += static_cast<double>(layer.q(0, 0, d)) * static_cast<double>(layer.q(0, 0, d));
        }
        auto const along = static_cast<float>(common / layer.given().shape().scale / square);
        transform_all(layer.k,
                      [&](float x, auto const& i) { return x + along * layer.q(0, 0, i.back()); });
        auto const run = certify<composed<dlzs::rotated_int8, sads::full_topk, sufa::no_tail>>(
            with(sads::budget::of_ratio(0.3)), layer.given());
        check_bounds(layer, run);
        CHECK(run.rows[0].dropped_mass_bound <= 2.0 * facts_of(layer, run.record, 0, 0).dropped);
    }
}

TEST_CASE("attention.certificate: a line that is wrong for some keys is no part of what is known") {
    // Powers of two are their own codes, so nothing is lost of their logits; the line that the other
    // keys call for doubles them, and the output is made with that.
    auto const keys = one_channel({0.05f}, {127.0f, 120.0f, 100.0f, 97.0f, 32.0f, 4.0f},
                                  {1.0f, 0.0f, 0.0f, 0.5f, -1.0f, 1.0f});
    for (index_t const kept : {4, 5}) {
        CAPTURE(kept);
        auto budget = sads::budget::of_mass(1.0);
        budget.at_most = kept;
        auto const run = certify<composed<dlzs::lz_keys, running, sufa::segment_tail>>(
            with(budget), keys.given());
        CHECK(std::ssize(run.record.kept[0]) == kept);
        CHECK(facts_of(keys, run.record, 0, 0).error > 1e-4);
        check_bounds(keys, run);
    }
    // The same of queries, one of which is a power of two, where scores are attended with.
    auto const queries = one_channel({0.127f, 0.064f}, {127.0f, 10.0f, 20.0f, 30.0f, 40.0f, 50.0f},
                                     {0.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f});
    auto const run = certify<composed<dlzs::dlzs8, sads::full_topk, sufa::mean_tail, sufa::reused>>(
        with(sads::budget::of_ratio(1.0)), queries.given());
    CHECK(facts_of(queries, run.record, 0, 1).error > 0.001);
    check_bounds(queries, run);
}

TEST_CASE("attention.certificate: infinite bounds stay so, whatever they are multiplied by") {
    auto const certified = certify<composed<dlzs::centred_int4, running, sufa::no_tail>>;
    // A tile's best key stays, its other one goes; later the best is so far above that their weights
    // are zero.
    auto const rising = one_channel({1.0f}, {0.0f, -1.0f, 2000.0f}, {1.0f, -1.0f, 0.0f});
    auto options = with(sads::budget::of_mass(0.3));
    options.tile_keys = 2;
    auto const later = certified(options, rising.given());
    CHECK(later.record.kept[0].size() == 2);
    CHECK(later.rows[0].dropped_mass_bound == 1.0);
    check_bounds(rising, later);
    // A dropped value lies where all values have their mean, at distance 0.
    std::vector<float> const values{0.25f, -1.25f, 0.0f, 1.0f};
    auto budget = sads::budget::of_mass(1.0);
    budget.at_most = 1;
    auto const unbounded = one_channel({1.0f}, {1.0f, 0.99f, 0.0f, -3.0f}, values);
    auto const one_of_four = certified(with(budget), unbounded.given());
    CHECK(one_of_four.record.kept[0] == std::vector<key_id>{0});
    check_bounds(unbounded, one_of_four);
    auto const large = one_channel({1.0f}, {3000.0f, 2999.5f, 2990.0f, 0.0f}, values);
    auto const best = certify<composed<dlzs::dlzs8, sads::full_topk, sufa::no_tail>>(
        with(sads::budget::of_count(1)), large.given());
    CHECK(best.record.kept[0] == std::vector<key_id>{0});
    check_bounds(large, best);
}

TEST_CASE("attention.certificate: a predictor without bounds leaves none on what it drops") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {4, 2, 20, 90, 16, 8}, true);
    auto const run = certify<composed<dlzs::centred_int4, whole, sufa::mean_tail, sufa::reused>>(
        with(sads::budget::of_mass(0.8)), layer.given());
    for (std::size_t row = 0; row < run.rows.size(); ++row) {
        auto const query = static_cast<index_t>(row) % 20;
        bool const all = std::ssize(run.record.kept[row]) == layer.given().shape().visible(query);
        CHECK(run.rows[row].dropped_mass_bound == (all ? 0.0 : 1.0));
        CHECK(std::isfinite(run.rows[row].error_bound));
    }
}

// --- what they are worth -------------------------------------------------------------------------

TEST_CASE(
    "attention.certificate: on random data the mass bound is within a factor 2 of the truth") {
    SOFATTN_GENERATOR(random);
    std::vector<double> mass;
    std::vector<double> error;
    for (bool const causal : {false, true}) {
        layer_case const layer(random, {4, 2, 60, 200, 32, 24}, causal);
        auto const run = certify<composed<dlzs::rotated_int8, whole, sufa::no_tail>>(
            with(sads::budget::of_mass(0.9)), layer.given());
        for (index_t h = 0; h < 4; ++h) {
            for (index_t q = 0; q < 60; ++q) {
                row_facts const facts = facts_of(layer, run.record, h, q);
                auto const& certificate = run.rows[static_cast<std::size_t>(h * 60 + q)];
                mass.push_back(certificate.dropped_mass_bound / facts.dropped);
                error.push_back(certificate.error_bound / facts.error);
            }
        }
    }
    CHECK(quantile(mass, 0.0) >= 1.0);
    CHECK(quantile(mass, 0.5) <= 2.0);
    CHECK(quantile(error, 0.0) >= 1.0);
    CHECK(quantile(error, 0.5) <= 20.0);
}

TEST_CASE("attention.certificate: on random data most errors are within a factor 2 of estimates") {
    SOFATTN_GENERATOR(random);
    auto const within = [&](run_function certified, sads::budget budget) {
        int rows = 0;
        int close = 0;
        for (bool const causal : {false, true}) {
            layer_case const layer(random, {4, 2, 60, 200, 32, 64}, causal);
            auto const run = certified(with(budget), layer.given());
            for (index_t h = 0; h < 4; ++h) {
                for (index_t q = 0; q < 60; ++q) {
                    double const error = facts_of(layer, run.record, h, q).error;
                    double const estimate = run.rows[static_cast<std::size_t>(h * 60 + q)].error;
                    rows += 1;
                    close += error <= 2.0 * estimate && estimate <= 2.0 * error ? 1 : 0;
                }
            }
        }
        return static_cast<double>(close) / rows;
    };
    auto const mass = sads::budget::of_mass(0.8);
    CHECK(within(&certify<composed<dlzs::rotated_int8, running, sufa::mean_tail>>, mass) >= 0.9);
    CHECK(within(&certify<composed<dlzs::rotated_int8, whole, sufa::segment_tail, sufa::reused>>,
                 mass) >= 0.9);
    CHECK(within(&certify<composed<dlzs::lz_keys, running, sufa::segment_tail>>, mass) >= 0.9);
    CHECK(within(&certify<composed<dlzs::exact, sads::full_topk, sufa::mean_tail>>,
                 sads::budget::of_ratio(0.3)) >= 0.9);
    CHECK(within(&certify<composed<dlzs::rotated_int8, whole, sufa::no_tail>>, mass) >= 0.9);
}

TEST_CASE(
    "attention.certificate: masses are estimated where nothing else needs calibrated logits") {
    SOFATTN_GENERATOR(random);
    for (float const mean : {0.0f, 3.0f, -100.0f}) {
        CAPTURE(mean);
        layer_case layer(random, {4, 2, 60, 200, 32, 24}, false);
        transform_all(layer.k, [&](float x, auto const&) { return x + mean; });
        auto const run = certify<composed<dlzs::rotated_int8, sads::full_topk, sufa::no_tail>>(
            with(sads::budget::of_ratio(0.3)), layer.given());
        std::vector<double> ratio;
        std::vector<double> bound;
        for (index_t h = 0; h < 4; ++h) {
            for (index_t q = 0; q < 60; ++q) {
                double const truth = facts_of(layer, run.record, h, q).dropped;
                auto const& certificate = run.rows[static_cast<std::size_t>(h * 60 + q)];
                ratio.push_back(certificate.dropped_mass / truth);
                bound.push_back(certificate.dropped_mass_bound / truth);
            }
        }
        CHECK(quantile(ratio, 0.01) >= 0.8);
        CHECK(quantile(ratio, 0.99) <= 1.25);
        CHECK(quantile(bound, 0.5) <= 2.0);
    }
}

// --- asking --------------------------------------------------------------------------------------

TEST_CASE("attention.certificate: every row is certified once, those that see no key included") {
    SOFATTN_GENERATOR(random);
    for (composition const& chosen : compositions) {
        std::string const name = chosen.name;
        CAPTURE(name);
        for (bool const causal : {false, true}) {
            for (auto const scope : {selection_scope::per_query_head, selection_scope::per_group}) {
                CAPTURE(causal);
                CAPTURE(static_cast<int>(scope));
                // More than two blocks of queries, most of them before the first key.
                layer_case const layer(random, {4, 2, 270, 40, 4, 3}, causal);
                auto options =
                    with(chosen.weighs ? sads::budget::of_mass(0.8) : sads::budget::of_ratio(0.5));
                options.scope = scope;
                auto const run = chosen.run(options, layer.given());
                CHECK(std::ranges::all_of(run.calls, [](int calls) { return calls == 1; }));
                bool none_before = true;
                for (std::size_t row = 0; row < run.rows.size(); ++row) {
                    if (causal && row % 270 < 230) {
                        none_before = none_before && run.rows[row].dropped_mass == 0.0 &&
                                      run.rows[row].dropped_mass_bound == 0.0 &&
                                      run.rows[row].error == 0.0 &&
                                      run.rows[row].error_bound == 0.0;
                    }
                }
                CHECK(none_before);
            }
        }
    }
}

TEST_CASE_TEMPLATE(
    "attention.certificate: asking changes no bit of outputs and selections", A,
    composed<dlzs::rotated_int8, whole, sufa::segment_tail, sufa::reused>,
    composed<dlzs::rotated_int8, running, sufa::mean_tail>,
    composed<dlzs::exact, sads::full_topk, sufa::segment_tail, sufa::recomputed, narrow_float>,
    composed<dlzs::rotated_int8, whole, sufa::segment_tail, sufa::reused, exec::simd>) {
    SOFATTN_GENERATOR(random);
    for (data const kind : all_data) {
        for (int n = 0; n < 3; ++n) {
            auto const c = random_case(random, kind, weighs_scores<typename A::selector>);
            auto const with_rows = certify<A>(c.options, c.layer.given());
            auto const without = run(A(c.options), c.layer.given());
            CAPTURE(static_cast<int>(kind));
            CHECK(same(with_rows.record, without));
            CHECK(with_rows.record.result.kept_pairs == without.result.kept_pairs);
            CHECK(with_rows.record.result.key_loads == without.result.key_loads);
        }
    }
}

TEST_CASE("attention.certificate: the same layer has the same certificates") {
    SOFATTN_GENERATOR(random);
    layer_case const layer(random, {4, 2, 30, 150, 16, 24}, true);
    for (composition const& chosen : compositions) {
        auto const options =
            with(chosen.weighs ? sads::budget::of_mass(0.8) : sads::budget::of_ratio(0.5));
        auto const first = chosen.run(options, layer.given());
        auto const second = chosen.run(options, layer.given());
        bool equal = true;
        for (std::size_t row = 0; row < first.rows.size(); ++row) {
            equal = equal && first.rows[row].dropped_mass == second.rows[row].dropped_mass &&
                    first.rows[row].dropped_mass_bound == second.rows[row].dropped_mass_bound &&
                    first.rows[row].error == second.rows[row].error &&
                    first.rows[row].error_bound == second.rows[row].error_bound;
        }
        CHECK(equal);
    }
}
