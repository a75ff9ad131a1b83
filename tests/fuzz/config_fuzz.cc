// A configuration file, a pipeline of the SQL catalog, and YAML: whatever they hold, reading them
// ends with a configuration or with problems.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "../unit/config/test_catalogue.h"
#include "config/pipeline_config.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == 'y') {
    (void)relay::config::parse_yaml(text, "config.yaml");
  } else if (data[0] % 2 == 0) {
    (void)relay::config::parse_config_file(relay::config::test_catalogue(), text, "relay.toml");
  } else {
    (void)relay::config::pipeline_from_json(relay::config::test_catalogue(), "fuzz", "", true,
                                            text);
  }
  return 0;
}
