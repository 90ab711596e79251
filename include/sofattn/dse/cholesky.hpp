// SPDX-License-Identifier: MIT
// Cholesky factor of a matrix that grows row by row.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace sofattn::dse {

/// Lower factor L of a symmetric positive definite matrix A = L L^T. A row more costs n^2 / 2
/// multiply-adds, and factoring anew is the same additions in the same order, so a search that was
/// resumed has the same bits. Columns are contiguous: both the row and a forward solution are sums of
/// scaled columns, independent outputs, which compilers turn into vectors without changing a bit.
class cholesky {
public:
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    void clear() noexcept { size_ = 0; }

    /// Appends the row A[n][0..n] of which the last element is the diagonal's. False, and nothing
    /// changed, if A would not be positive definite in double precision.
    /// pre: row.size() == size() + 1
    [[nodiscard]] bool append(std::span<double const> row) {
        reserve(size_ + 1);
        work_.assign(row.begin(), row.end() - 1);
        solve_lower(work_);
        double rest = row.back();
        for (double const w : work_) {
            rest -= w * w;
        }
        if (!(rest > row.back() * 1e-14)) { // NaN is not
            return false;
        }
        for (std::size_t j = 0; j < size_; ++j) {
            at(size_, j) = work_[j];
        }
        at(size_, size_) = std::sqrt(rest);
        ++size_;
        return true;
    }

    /// x := L^-1 x. pre: x.size() == size()
    void solve_lower(std::span<double> x) const noexcept {
        for (std::size_t j = 0; j < x.size(); ++j) {
            double const* const column = &data_[j * capacity_];
            double const y = x[j] / column[j];
            x[j] = y;
            for (std::size_t i = j + 1; i < x.size(); ++i) {
                x[i] -= column[i] * y;
            }
        }
    }
    /// x := L^-T x. pre: x.size() == size()
    void solve_upper(std::span<double> x) const noexcept {
        for (std::size_t j = x.size(); j-- > 0;) {
            double const* const column = &data_[j * capacity_];
            double sum = x[j];
            for (std::size_t i = j + 1; i < x.size(); ++i) {
                sum -= column[i] * x[i];
            }
            x[j] = sum / column[j];
        }
    }

    /// A^-1, symmetric, [row * size + column].
    [[nodiscard]] std::vector<double> inverse() const {
        // Row c of `columns` is column c of L^-1: zeros before c.
        std::vector<double> columns(size_ * size_, 0.0);
        for (std::size_t c = 0; c < size_; ++c) {
            double* const x = &columns[c * size_];
            x[c] = 1.0;
            for (std::size_t j = c; j < size_; ++j) {
                double const* const column = &data_[j * capacity_];
                double const y = x[j] / column[j];
                x[j] = y;
                for (std::size_t i = j + 1; i < size_; ++i) {
                    x[i] -= column[i] * y;
                }
            }
        }
        // A^-1 = L^-T L^-1, as a sum over the rows of L^-1, each of them independent outputs.
        std::vector<double> rows(size_ * size_, 0.0);
        for (std::size_t i = 0; i < size_; ++i) {
            for (std::size_t c = 0; c <= i; ++c) {
                rows[i * size_ + c] = columns[c * size_ + i];
            }
        }
        std::vector<double> all(size_ * size_, 0.0);
        for (std::size_t i = 0; i < size_; ++i) {
            double const* const row = &rows[i * size_];
            for (std::size_t a = 0; a <= i; ++a) {
                double const scale = row[a];
                double* const to = &all[a * size_];
                for (std::size_t b = 0; b <= a; ++b) {
                    to[b] += scale * row[b];
                }
            }
        }
        for (std::size_t a = 0; a < size_; ++a) {
            for (std::size_t b = a + 1; b < size_; ++b) {
                all[a * size_ + b] = all[b * size_ + a];
            }
        }
        return all;
    }

    /// Element of the factor. pre: column <= row < size()
    [[nodiscard]] double operator()(std::size_t row, std::size_t column) const noexcept {
        return data_[column * capacity_ + row];
    }

private:
    [[nodiscard]] double& at(std::size_t row, std::size_t column) noexcept {
        return data_[column * capacity_ + row];
    }
    void reserve(std::size_t size) {
        if (size <= capacity_) {
            return;
        }
        std::size_t const larger = std::max<std::size_t>(size, 2 * capacity_ + 16);
        std::vector<double> moved(larger * larger, 0.0);
        for (std::size_t j = 0; j < size_; ++j) {
            std::copy_n(&data_[j * capacity_], size_, &moved[j * larger]);
        }
        data_ = std::move(moved);
        capacity_ = larger;
    }

    std::vector<double> data_; ///< [column * capacity + row]
    std::vector<double> work_;
    std::size_t size_ = 0;
    std::size_t capacity_ = 0;
};

} // namespace sofattn::dse
