{#- When the cut was asked for: every change committed before is in this build. `warehouse/build.py` writes it. -#}
{% macro cut_made_at() -%}
(select made_at from meta.build)
{%- endmacro %}

{#- The number of this build: each prepared one has the next. -#}
{% macro build_number() -%}
(select number from meta.build)
{%- endmacro %}
