// SPDX-License-Identifier: MIT
// A segment sorter that is not told how keys are dealt to segments; the message names the clause.
// expect: error: .*constraint
// expect: P::layout
#include <sofattn/sads/segment_topk.hpp>

#ifndef SOFATTN_OK
struct no_choice {};
sofattn::sads::segment_topk<no_choice> const sorter;
#else
struct own_choice {
    static constexpr auto layout = sofattn::sads::segment_layout::strided;
};
sofattn::sads::segment_topk<own_choice> const sorter;
#endif
