// SPDX-License-Identifier: MIT
// Every target makes the integers of the definitions: so all of them make the same.
#include "support/generators.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/int8_codes.hpp>
#include <sofattn/exec/int8_dot.hpp>
#include <sofattn/exec/int8_softmax.hpp>
#include <sofattn/exec/int8_tile.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

using namespace sofattn;

constexpr index_t width = exec::tile_width;
constexpr auto rows = static_cast<std::size_t>(width);

/// The row of every place in the order of words.
std::array<index_t, rows> rows_of_words() {
    std::array<std::int32_t, rows> numbers{};
    for (std::size_t i = 0; i < rows; ++i) {
        numbers[i] = static_cast<std::int32_t>(i);
    }
    exec::row_words words{};
    exec::rows_to_words(numbers.data(), words.data());
    std::array<index_t, rows> result{};
    std::copy(words.begin(), words.end(), result.begin());
    return result;
}

/// Random units, the extremes among them.
exec::weight_unit random_unit(test::generator& random) {
    constexpr std::array<float, 8> some{0.0f, 1e-6f, 0.2f, 0.999f, 1.0f, 3.5f, 2047.0f, 1e30f};
    return exec::weight_unit::of(random.chance(0.5)
                                     ? some[random.integer<std::size_t>(0, 7)]
                                     : std::abs(static_cast<float>(random.normal())));
}

} // namespace

TEST_CASE("exec.int8_softmax: the order of words has every row once, and back") {
    auto const order = rows_of_words();
    auto sorted = order;
    std::sort(sorted.begin(), sorted.end());
    std::array<std::int16_t, rows> words{};
    for (std::size_t i = 0; i < rows; ++i) {
        CHECK(sorted[i] == static_cast<index_t>(i));
        words[i] = static_cast<std::int16_t>(order[i] - 7);
    }
    std::array<std::int32_t, rows> back{};
    exec::words_to_rows(words.data(), back.data());
    for (std::size_t i = 0; i < rows; ++i) {
        CHECK(back[i] == static_cast<std::int32_t>(i) - 7);
    }
}

TEST_CASE("exec.int8_softmax: steps are distances times the unit, weights powers of two") {
    for (float const unit : {1e-4f, 0.01f, 0.3f, 0.99f, 1.0f, 1.7f, 30.0f, 500.0f}) {
        CAPTURE(unit);
        auto const of = exec::weight_unit::of(unit);
        for (std::int32_t distance = 0; distance < 65536; distance += 1 + distance / 50) {
            double const right = static_cast<double>(distance) * static_cast<double>(unit);
            std::int32_t const steps = exec::steps_of(distance, of);
            // Rounded down, of a factor that is off by half of 2^-16 and meets 2^16 at most.
            bool const near = std::abs(steps - right) <= 2.0;
            CHECK((near || (right > 1024 && steps >= 1024)));
        }
    }
    CHECK(exec::weight_of(0) == exec::most_weight * 256);
    for (std::int32_t steps = 0; steps < 65536; ++steps) {
        double const right = exec::most_weight * 256.0 * std::exp2(-steps / 64.0);
        if (std::abs(exec::weight_of(steps) - right) > 1.0) {
            CAPTURE(steps);
            CHECK(exec::weight_of(steps) == right);
        }
    }
}

TEST_CASE("exec.int8_softmax: logits are shifted and scaled sums, tops their maxima") {
    SOFATTN_GENERATOR(random);
    auto const order = rows_of_words();
    for (index_t keys = 0; keys <= exec::tile_rows; ++keys) {
        for (index_t const steps : {1, 2, 16, 33, 64}) {
            std::vector<std::int8_t> codes(static_cast<std::size_t>(keys * steps * 4 + 4));
            std::vector<std::uint8_t> panel(static_cast<std::size_t>(steps * width * 4));
            std::vector<int> row_codes(panel.size());
            bool const extreme = random.chance(0.3);
            for (auto& code : codes) {
                code = static_cast<std::int8_t>(extreme ? 127 : random.integer(-127, 127));
            }
            for (std::size_t i = 0; i < panel.size(); ++i) {
                row_codes[i] = extreme ? (i % 8 < 4 ? 127 : -127) : random.integer(-127, 127);
                panel[i] = exec::panel_byte(row_codes[i]);
            }
            std::vector<std::int32_t> four(codes.size() / 4);
            std::memcpy(four.data(), codes.data(), codes.size());
            std::array<std::int32_t, exec::tile_rows> starts{};
            std::array<std::int16_t, exec::tile_rows> scales{};
            for (index_t k = 0; k < keys; ++k) {
                std::int32_t sum = 0;
                for (index_t i = 0; i < steps * 4; ++i) {
                    sum += codes[static_cast<std::size_t>(k * steps * 4 + i)];
                }
                starts[static_cast<std::size_t>(k)] = exec::dot_start(sum);
                scales[static_cast<std::size_t>(k)] =
                    static_cast<std::int16_t>(extreme ? 32767 : random.integer(0, 32767));
            }
            int const shift = exec::logit_shift(steps * 4);
            std::vector<std::int16_t> logits(static_cast<std::size_t>(keys * width + 1), 4321);
            std::array<std::int16_t, rows> top{};
            top.fill(-5000);
            exec::int8_logits(keys,
                              {four.data(), steps, starts.data(), panel.data(), nullptr, 0, steps},
                              {scales.data(), logits.data(), top.data(), shift});
            CHECK(logits.back() == 4321);
            bool same = true;
            for (std::size_t i = 0; i < rows; ++i) {
                std::int16_t most = -5000;
                for (index_t k = 0; k < keys; ++k) {
                    std::int32_t sum = 0;
                    for (index_t s = 0; s < steps * 4; ++s) {
                        sum += codes[static_cast<std::size_t>(k * steps * 4 + s)] *
                               row_codes[static_cast<std::size_t>((s / 4 * width + order[i]) * 4 +
                                                                  s % 4)];
                    }
                    std::int16_t const right =
                        exec::logit_of(sum, shift, scales[static_cast<std::size_t>(k)]);
                    same = same && logits[static_cast<std::size_t>(k * width) + i] == right;
                    most = std::max(most, right);
                }
                same = same && top[i] == most;
            }
            CHECK(same);
        }
    }
}

TEST_CASE(
    "exec.int8_softmax: steps and weights are those of the definitions, roundings passed on") {
    SOFATTN_GENERATOR(random);
    auto const order = rows_of_words();
    for (index_t const groups : {1, 2, 3, 10}) {
        for (bool const masked : {false, true}) {
            index_t const keys = 4 * groups;
            std::vector<std::int16_t> logits(static_cast<std::size_t>(keys * width));
            std::vector<std::uint16_t> offsets(static_cast<std::size_t>(keys));
            int const spread = random.chance(0.5) ? 300 : 32000;
            for (auto& logit : logits) {
                logit = static_cast<std::int16_t>(random.integer(-spread, spread));
            }
            for (auto& offset : offsets) {
                offset = static_cast<std::uint16_t>(random.integer(0, exec::most_value_steps));
            }
            exec::distance_rows of{};
            exec::row_words from{};
            exec::row_words to{};
            std::array<exec::weight_unit, rows> units{};
            of.top.fill(exec::masked_logit);
            for (std::size_t i = 0; i < rows; ++i) {
                units[i] = random_unit(random);
                of.most[i] = static_cast<std::uint16_t>(units[i].most);
                of.shift[i] = static_cast<std::uint16_t>(units[i].shift);
                of.factor[i] = static_cast<std::uint16_t>(units[i].factor);
                from[i] = static_cast<std::uint16_t>(masked ? random.integer<index_t>(0, keys) : 0);
                to[i] =
                    static_cast<std::uint16_t>(masked ? random.integer<index_t>(0, keys) : keys);
            }
            auto const before = logits;
            exec::int8_mask(0, keys, from, to, logits.data(), of);
            if (masked) {
                exec::int8_steps<true>(logits.data(), keys, offsets.data(), of);
            } else {
                exec::int8_steps<false>(logits.data(), keys, offsets.data(), of);
            }
            auto* const panel = reinterpret_cast<std::uint8_t*>(logits.data());
            exec::int8_weights(logits.data(), groups, of.nearest, panel); // in place
            bool same = true;
            for (std::size_t i = 0; i < rows; ++i) {
                auto const logit = [&](index_t k) {
                    return before[static_cast<std::size_t>(k * width) + i];
                };
                std::int16_t top = exec::masked_logit;
                for (index_t k = from[i]; k < to[i]; ++k) {
                    top = std::max(top, logit(k));
                }
                std::vector<std::int32_t> steps(static_cast<std::size_t>(keys));
                std::int32_t nearest = exec::most_value_steps;
                for (index_t k = 0; k < keys; ++k) {
                    bool const seen = k >= from[i] && k < to[i];
                    std::int32_t& step = steps[static_cast<std::size_t>(k)];
                    step = seen ? std::min(exec::steps_of(top - logit(k), units[i]) +
                                               offsets[static_cast<std::size_t>(k)],
                                           65535)
                                : 65535;
                    nearest = std::min(nearest, step);
                }
                same = same && of.nearest[i] == nearest;
                std::int32_t carry = 128;
                for (index_t k = 0; k < keys; ++k) {
                    carry += exec::weight_of(steps[static_cast<std::size_t>(k)] - nearest);
                    index_t const at = (k / 4 * width + order[i]) * 4 + k % 4;
                    same = same && panel[at] == static_cast<std::uint8_t>((carry >> 8) -
                                                                          exec::weight_offset);
                    carry &= 255;
                }
            }
            CHECK(same);
        }
    }
}

TEST_CASE("exec.int8_softmax: weighted values are added to what outputs are multiplied by") {
    SOFATTN_GENERATOR(random);
    for (index_t columns = 1; columns <= exec::tile_rows; ++columns) {
        for (index_t const steps : {1, 3, 72}) {
            index_t const pitch = columns + random.integer<index_t>(0, 5);
            std::vector<std::int8_t> codes(static_cast<std::size_t>(steps * pitch * 4));
            std::vector<int> weights(static_cast<std::size_t>(steps * width * 4));
            std::vector<std::uint8_t> panel(weights.size());
            for (auto& code : codes) {
                code = static_cast<std::int8_t>(random.integer(-127, 127));
            }
            for (std::size_t i = 0; i < weights.size(); ++i) {
                weights[i] = random.integer(0, exec::most_weight);
                panel[i] = static_cast<std::uint8_t>(weights[i] - exec::weight_offset);
            }
            std::vector<std::int32_t> four(codes.size() / 4);
            std::memcpy(four.data(), codes.data(), codes.size());
            auto const code = [&](index_t c, index_t key) {
                return codes[static_cast<std::size_t>((key / 4 * pitch + c) * 4 + key % 4)];
            };
            std::array<std::int32_t, exec::tile_rows> starts{};
            std::array<float, exec::tile_rows> units{};
            for (index_t c = 0; c < columns; ++c) {
                std::int32_t sum = 0;
                for (index_t key = 0; key < steps * 4; ++key) {
                    sum += code(c, key);
                }
                starts[static_cast<std::size_t>(c)] = exec::weight_offset * sum;
                units[static_cast<std::size_t>(c)] = std::ldexp(1.0f, random.integer(-3, 3));
            }
            std::array<float, rows> old{};
            std::array<float, rows> weight{};
            for (std::size_t i = 0; i < rows; ++i) { // powers of two: nothing is rounded
                old[i] = random.chance(0.3) ? 0.0f : 0.5f;
                weight[i] = random.chance(0.5) ? 1.0f : 0.25f;
            }
            std::vector<float> output(static_cast<std::size_t>(columns * width), 96.0f);
            exec::int8_values(columns,
                              {four.data(), 1, starts.data(), panel.data(), nullptr, 0, steps},
                              pitch, {units.data(), old.data(), weight.data(), output.data()});
            bool same = true;
            for (index_t c = 0; c < columns; ++c) {
                for (std::size_t i = 0; i < rows; ++i) {
                    std::int32_t sum = 0;
                    for (index_t key = 0; key < steps * 4; ++key) {
                        sum += code(c, key) *
                               weights[(static_cast<std::size_t>(key / 4) * rows + i) * 4 +
                                       static_cast<std::size_t>(key % 4)];
                    }
                    float const right =
                        static_cast<float>(sum) * (weight[i] * units[static_cast<std::size_t>(c)]) +
                        old[i] * 96.0f;
                    same = same && output[static_cast<std::size_t>(c * width) + i] == right;
                }
            }
            CHECK(same);
        }
    }
}

TEST_CASE("exec.int8_codes: the nearest codes of rows, ties to even, and their sums") {
    SOFATTN_GENERATOR(random);
    for (index_t const columns : {1, 4, 15, 16, 17, 64, 256}) {
        auto const whole = static_cast<std::size_t>(exec::whole_vectors(columns));
        std::array<std::vector<float>, 4> x;
        std::vector<float> centre(whole);
        for (auto& row : x) {
            row.resize(whole);
            for (index_t d = 0; d < columns; ++d) {
                row[static_cast<std::size_t>(d)] =
                    random.chance(0.3) ? 0.5f * static_cast<float>(random.integer(-20, 20))
                                       : static_cast<float>(random.normal());
            }
        }
        for (index_t d = 0; d < columns; ++d) {
            centre[static_cast<std::size_t>(d)] = static_cast<float>(random.normal());
        }
        auto const right = [](float value, float inverse) {
            return static_cast<int>(std::nearbyint(value * inverse));
        };
        float most = 0;
        for (std::size_t d = 0; d < whole; ++d) {
            most = std::max(most, std::abs(x[0][d] - centre[d]));
        }
        CHECK(exec::magnitude(x[0].data(), centre.data(), columns) == most);
        float const inverse = exec::codes_per_unit(most);
        std::vector<std::int8_t> codes(whole);
        std::int32_t const sum =
            exec::row_codes(x[0].data(), centre.data(), columns, inverse, codes.data());
        std::int32_t total = 0;
        for (std::size_t d = 0; d < whole; ++d) {
            CHECK(codes[d] == right(x[0][d] - centre[d], inverse));
            total += codes[d];
        }
        CHECK(sum == total);

        std::array<float, 4> inverses{};
        for (std::size_t i = 0; i < 4; ++i) {
            inverses[i] = i == 1 ? 1.0f : exec::codes_per_unit(10.0f + static_cast<float>(i));
        }
        std::vector<std::int32_t> four(whole);
        std::vector<std::int32_t> sums(whole, 3);
        exec::four_codes<true>(
            exec::four_rows<float>{x[0].data(), x[1].data(), x[2].data(), x[3].data()},
            inverses.data(), columns, four.data(), sums.data());
        for (std::size_t d = 0; d < whole; ++d) {
            std::array<std::int8_t, 4> bytes{};
            std::memcpy(bytes.data(), &four[d], 4);
            std::int32_t column = 3;
            for (std::size_t i = 0; i < 4; ++i) {
                CHECK(bytes[i] == right(x[i][d], inverses[i]));
                column += bytes[i];
            }
            CHECK(sums[d] == column);
        }
    }
    CHECK(exec::codes_per_unit(0.0f) == 0.0f);
}
