CREATE PUBLICATION my_pub FOR TABLE public.order_totals;
