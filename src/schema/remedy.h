#pragma once

#include <string>
#include <string_view>

#include "schema/manifest.h"

namespace relay::schema {

/// Installs what is missing, and replaces functions, views and privileges that have changed.
constexpr std::string_view kInit = "pgtrickle-relay init";

/// What the operator can do about a difference: `pgtrickle-relay init`, SQL, or the first and, if
/// that is not enough, the second. Pure.

/// A constraint that PostgreSQL has not checked for the rows that were there before it.
bool is_not_valid(const Object& object);

std::string remedy_for_missing(const Object& needed);
/// `attribute`: the one that differs.
std::string remedy_for_changed(const Object& needed, const Object& found,
                               std::string_view attribute);
std::string remedy_for_added(const Object& found);
/// For privileges on the object that a role lacks.
std::string remedy_for_revoked(const Object& object, std::string_view role,
                               std::string_view privileges);
/// For privileges on the object that a role has and an installation does not give.
std::string remedy_for_granted(const Object& object, std::string_view role,
                               std::string_view privileges);

}  // namespace relay::schema
