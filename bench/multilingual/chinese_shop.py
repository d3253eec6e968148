"""A made-up Chinese shop: titles from templates, and people who like a few kinds of goods each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

GOODS = {
    "鞋靴": "跑步鞋 登山鞋 帆布鞋 皮鞋 雪地靴 凉鞋 拖鞋 篮球鞋",
    "服装": "羽绒服 衬衫 连衣裙 牛仔裤 毛衣 运动外套 西装 短袖",
    "厨具": "电饭煲 炒锅 菜刀 保温杯 咖啡机 烤箱 蒸锅 砧板",
    "数码": "蓝牙耳机 智能手机 平板电脑 充电宝 机械键盘 显示器 路由器 音箱",
    "图书": "长篇小说 诗集 历史读物 菜谱 儿童绘本 词典 摄影集 漫画",
    "食品": "绿茶 坚果 巧克力 蜂蜜 方便面 牛肉干 大米 酸奶",
    "家居": "床单 台灯 窗帘 沙发 书架 地毯 收纳箱 枕头",
    "玩具": "积木 拼图 遥控车 毛绒熊 水彩笔 风筝 棋盘 飞盘",
    "运动": "瑜伽垫 羽毛球拍 篮球 帐篷 自行车 泳镜 哑铃 滑板",
    "美妆": "口红 洗面奶 防晒霜 香水 面膜 洗发水 护手霜 眉笔",
}
LOOKS = "红色 黑色 白色 深蓝 浅灰 米色 墨绿 粉色 复古 简约 北欧风 国潮 卡通 商务 经典 限量"
KINDS = "轻便 加厚 防水 便携 大号 小号 高端 入门 手工 有机 进口 家用 户外 儿童 男士 女士 学生 老人"
ENDS = "礼盒装 春季新款 两件套 送礼佳品 特价 旗舰版 第二代 加量装 三年质保 包邮"

PEOPLE = 300
EVENTS = 25


def shop(items: int, seed: int) -> tuple[pa.Table, pa.Table]:
    """Return a catalog of distinct titles, and a log of likes in time order."""
    rng = np.random.default_rng(seed)
    groups = list(GOODS)
    titles: dict[str, int] = {}
    while len(titles) < items:
        group = int(rng.integers(len(groups)))
        titles.setdefault(_title(groups[group], rng), group)
    group_of = np.array(list(titles.values()))
    ids = [f"sku-{row}" for row in range(items)]
    catalog = pa.table({"item_id": ids, "text": list(titles)})

    users, chosen, times = [], [], []
    for person in range(PEOPLE):
        tastes = rng.choice(len(groups), 2, replace=False)
        liked = np.flatnonzero(np.isin(group_of, tastes))
        users += [f"person-{person}"] * EVENTS
        chosen += rng.choice(liked, EVENTS, replace=False).tolist()
        times += (1_700_000_000 + np.sort(rng.integers(0, 90 * 86_400, EVENTS))).tolist()
    log = pa.table({"user_id": users, "item_id": [ids[row] for row in chosen], "timestamp": times})
    return catalog, log


def _title(group: str, rng: np.random.Generator) -> str:
    """Return a title such as `深蓝 防水登山鞋 春季新款`."""
    look, kind, end = (str(rng.choice(words.split())) for words in (LOOKS, KINDS, ENDS))
    goods = str(rng.choice(GOODS[group].split()))
    forms = (
        f"{look}{kind}{goods} {end}",
        f"{goods} {look} {kind}",
        f"{kind}{goods}{look}款",
        f"{group} {look}{goods}",
        f"{goods} {rng.integers(1, 60)}号 {kind}{end}",
    )
    return forms[int(rng.integers(len(forms)))]
