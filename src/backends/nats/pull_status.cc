#include "backends/nats/pull_status.h"

namespace relay::nats {

PullStatus pull_status_of(std::string_view status, std::string_view text) {
  if (status == "100") return PullStatus::alive;
  if (status == "404" || status == "408") return PullStatus::ended;
  if (status == "409" && text == "Batch Completed") return PullStatus::ended;
  if (text.find("MaxBytes") != std::string_view::npos) return PullStatus::too_large;
  return PullStatus::failed;
}

}  // namespace relay::nats
