#include "coordinator/share.h"

#include <algorithm>

namespace relay::coordinator {

Share share_of(std::size_t pipelines, std::size_t instances, std::size_t held) {
  const std::size_t count = std::max<std::size_t>(instances, 1);
  const std::size_t most = (pipelines + count - 1) / count;
  return held <= most ? Share{most - held, 0} : Share{0, held - most};
}

Share leader_share(std::size_t pipelines, bool leader, std::size_t held) {
  return leader ? Share{pipelines - std::min(pipelines, held), 0} : Share{0, held};
}

}  // namespace relay::coordinator
