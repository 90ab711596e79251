// SPDX-License-Identifier: MIT
// The whole library.
#pragma once

#include <sofattn/attention/attention.hpp>
#include <sofattn/attention/presets.hpp>
#include <sofattn/io/npy.hpp>
#include <sofattn/probe/complexity.hpp>
#include <sofattn/ref/dense_attention.hpp>
#include <sofattn/ref/quality.hpp>
