// SPDX-License-Identifier: MIT
// What each head of a model costs in KL and keeps in keys at several budgets, and which budgets of
// all heads together keep the fewest keys.
#pragma once

#include <cstddef>
#include <vector>

namespace sofattn::dse {

/// One head with a budget, all others dense.
struct head_sample {
    double spreads = 0;        ///< output error that it is given, in spreads of the values
    double kept_share = 0;     ///< of its visible keys
    double kl = 0;             ///< of the model's prediction from dense, nats, mean over tokens
    double error_relative = 0; ///< of the head's output, Frobenius
};

/// Budgets of all heads, and what the curves say of them.
struct head_allocation {
    std::vector<std::vector<head_sample>> heads; ///< [layer][head]
    double predicted_kl = 0;                     ///< sum of the heads' own
    double kept_share = 0;                       ///< mean over heads

    /// [layer][head]
    [[nodiscard]] std::vector<std::vector<double>> spreads() const;
};

/// Small errors of several heads add up: KL is a square of theirs, and errors of different heads are
/// nearly independent. So the KL of the whole model is the sum of what each head does alone, about,
/// and a Lagrange multiplier finds the best budgets for a sum. By how much the model deviates from
/// the sum is told by weights per layer, which a search finds.
class head_curves {
public:
    /// samples [layer][head][setting], by rising spreads, the same settings everywhere, at least
    /// two. Between them, logarithms are interpolated.
    explicit head_curves(std::vector<std::vector<std::vector<head_sample>>> const& samples);

    [[nodiscard]] std::size_t layers() const noexcept { return layers_; }

    /// Every head pays the same price in KL, times its layer's weight, for a key, such that the
    /// unweighted KLs sum to at most `predicted_kl`, and close to it. Where no budget of the settings
    /// measured is as small, the smallest everywhere; where none is as large, the largest.
    [[nodiscard]] head_allocation at(std::vector<double> const& layer_weights,
                                     double predicted_kl) const;

private:
    [[nodiscard]] head_allocation of(std::vector<std::size_t> const& choice) const;
    [[nodiscard]] std::vector<std::size_t> at_price(std::vector<double> const& layer_weights,
                                                    double price) const;
    /// Prices jump from corner to corner of the heads' curves: what they leave of the sum goes to
    /// single heads.
    void fill(std::vector<double> const& layer_weights, double predicted_kl,
              std::vector<std::size_t>& choice) const;

    std::size_t layers_;
    std::size_t heads_;                          ///< per layer
    std::vector<std::vector<head_sample>> fine_; ///< [layer * heads + head][setting]
};

} // namespace sofattn::dse
