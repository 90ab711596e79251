// SPDX-License-Identifier: MIT
// The form of a case: what the compiler must say, the correct use, the mistake.
// expect: error: .*write keep <= segment

template <int Segment, int Keep>
struct budget {
    static_assert(Keep <= Segment, "cannot keep more than there is: write keep <= segment");
};

#ifdef SOFATTN_OK
budget<64, 4> const example;
#else
budget<4, 64> const example;
#endif
