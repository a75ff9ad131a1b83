#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "config/fields.h"

namespace relay::config {

/// What a configuration is written in decides which keys and references it knows.
enum class Written { in_catalog, in_file, in_file_for_catalog };

/// A secret that an option holds.
struct SecretPart {
  std::string option;    ///< "password", "request_headers.Authorization"
  std::string text;      ///< all of its value, or of a URL the part that is secret
  bool literal = false;  ///< written as it is, with no reference in the value
};

/// The secrets in the value of one option: of a URL its credentials and tokens, else all of it.
/// Nothing for options that hold none.
std::vector<SecretPart> secret_parts(const Field& field, const Node& node);
/// Those of all options of a table.
std::vector<SecretPart> secret_parts(const Values& values, FieldTable table);
/// Those of a pipeline's `headers`: the values of Authorization, Cookie and the like, as far as
/// they are no templates.
std::vector<SecretPart> secret_headers(const Node::Object& headers);

/// Lets `secrets::masked` know them.
void remember_secrets(const Values& values, FieldTable table);

/// A warning for each option that holds a secret literally, with the reference to write instead.
std::vector<Error> warn_of_literals(const Values& values, FieldTable table, Written written);
Error literal_warning(const SecretPart& part, std::string_view place, Written written);

}  // namespace relay::config
