// SPDX-License-Identifier: MIT
// With other.cpp: all headers in two translation units link, so nothing is defined twice.
#include <sofattn/sofattn.hpp>

std::size_t size_of_half_elsewhere();

int main() {
    static_assert(sizeof(sofattn::half) == 2);
    return size_of_half_elsewhere() == sizeof(sofattn::half) ? 0 : 1;
}
