"""The playground: a page where people rank documents of their own, and see how."""
