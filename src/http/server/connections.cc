#include "http/server/connections.h"

#include <algorithm>

namespace relay::http {

void Connections::enter(ListedConnection& one) {
  one.list_ = &for_client_;
  one.place_ = for_client_.insert(for_client_.end(), &one);
  one.since_ = std::chrono::steady_clock::now();
}

void Connections::leave(ListedConnection& one) {
  if (!one.list_) return;
  set_unread(one, 0);
  one.list_->erase(one.place_);
  one.list_ = nullptr;
}

void Connections::wait_for_client(ListedConnection& one, std::size_t unread) {
  move(one, for_client_, unread);
}

void Connections::wait_for_worker(ListedConnection& one) {
  move(one, for_worker_, 0);
}

bool Connections::close_first(std::chrono::milliseconds at_least) {
  const List& longer = for_worker_.size() > for_client_.size() ? for_worker_ : for_client_;
  if (longer.empty()) return false;
  if (std::chrono::steady_clock::now() - longer.front()->since_ < at_least) return false;
  close(*longer.front());
  return true;
}

bool Connections::close_first_unread(const ListedConnection& but) {
  const auto found =
      std::find_if(for_client_.begin(), for_client_.end(),
                   [&](const ListedConnection* one) { return one->unread_ > 0 && one != &but; });
  if (found == for_client_.end()) return false;
  close(**found);
  return true;
}

void Connections::close_where(const std::function<bool(const ListedConnection&)>& which) {
  for (List* list : {&for_client_, &for_worker_}) {
    for (auto next = list->begin(); next != list->end();) {
      ListedConnection& one = **next++;
      if (which(one)) close(one);
    }
  }
}

void Connections::close(ListedConnection& one) {
  leave(one);
  one.close();
}

void Connections::move(ListedConnection& one, List& to, std::size_t unread) {
  if (!one.list_) return;
  set_unread(one, unread);
  to.splice(to.end(), *one.list_, one.place_);
  one.list_ = &to;
  one.since_ = std::chrono::steady_clock::now();
}

void Connections::set_unread(ListedConnection& one, std::size_t unread) {
  unread_ += unread - one.unread_;
  one.unread_ = unread;
}

}  // namespace relay::http
