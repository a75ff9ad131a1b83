#pragma once

#include <span>
#include <string>

#include "postgres/connection.h"

namespace relay::postgres {

/// A PostgreSQL array literal of texts, to be given as one parameter.
inline std::string text_array(std::span<const Param> texts) {
  std::string out = "{";
  for (const Param& text : texts) {
    if (out.size() > 1) out += ',';
    if (!text) {
      out += "NULL";
      continue;
    }
    out += '"';
    for (const char c : *text) {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
    out += '"';
  }
  return out + '}';
}

}  // namespace relay::postgres
