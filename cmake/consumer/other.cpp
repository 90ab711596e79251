// SPDX-License-Identifier: MIT
#include <sofattn/sofattn.hpp>

std::size_t size_of_half_elsewhere() { return sizeof(sofattn::half); }
