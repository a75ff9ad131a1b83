#include "backends/memory/options.h"

#include "config/option_table.h"

namespace relay::memory {

namespace {

using config::FieldType;
using config::fills;
using config::Option;

constexpr Option<Options> kOptions[] = {
    {{.name = "keep",
      .type = FieldType::integer,
      .default_text = "10",
      .meaning = "health shows the ids of the last so many messages",
      .min = 0,
      .max = 1000,
      .plain = true},
     fills<&Options::keep>},
};

constexpr auto kFields = config::fields_of(kOptions);

}  // namespace

config::FieldTable fields() {
  return kFields;
}

Result<Options> parse_options(const config::Values& values) {
  return config::filled<Options>(kOptions, values);
}

}  // namespace relay::memory
