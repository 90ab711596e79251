// SPDX-License-Identifier: MIT
// Names and values of a report's fields, so that one writer serves every report.
#pragma once

#include <boost/hana/accessors.hpp>
#include <boost/hana/adapt_struct.hpp>
#include <boost/hana/concept/struct.hpp>
#include <boost/hana/core/to.hpp>
#include <boost/hana/first.hpp>
#include <boost/hana/for_each.hpp>
#include <boost/hana/second.hpp>
#include <boost/hana/string.hpp>

#include <string_view>

namespace sofattn::io {

/// A struct that BOOST_HANA_ADAPT_STRUCT has told the names of. Names carry the unit: time_seconds,
/// key_bytes, kept_share.
template <class R>
concept report = boost::hana::Struct<R>::value;

/// Calls f(name, value) for every field, in the order of adaptation.
template <report Report, class F>
constexpr void for_each_field(Report const& of, F f) {
    boost::hana::for_each(boost::hana::accessors<Report>(), [&](auto const& accessor) {
        f(std::string_view(boost::hana::to<char const*>(boost::hana::first(accessor))),
          boost::hana::second(accessor)(of));
    });
}

} // namespace sofattn::io
