#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "envelope/encoder.h"
#include "envelope/filter.h"
#include "envelope/format.h"
#include "envelope/template.h"

namespace relay::envelope {

/// Encoder options, checked and compiled. Never changes afterwards.
struct Plan {
  struct HeaderTemplate {
    std::string name;
    Template value;
  };

  EncoderOptions options;
  const Format* format = nullptr;
  bool row_mode = false;
  std::string event_source;  ///< of CloudEvents
  Template subject;
  std::optional<Template> key;
  std::vector<HeaderTemplate> headers;
  std::optional<Filter> filter;

  bool uses_key = false;       ///< some template asks for {key}
  bool has_columns = false;    ///< some template asks for a column
  bool varies_by_row = false;  ///< rows of one delta can have different routes
  bool varies_by_op = false;   ///< inserts, updates and deletes can have different routes

  /// Misconfigured: says which option, where in it, and what is allowed.
  static Result<Plan> make(EncoderOptions options);
};

/// Names that every message's own headers have; none of them may come from elsewhere.
bool is_reserved_header(std::string_view name);

}  // namespace relay::envelope
